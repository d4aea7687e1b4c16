"""Products of the rows of one matrix with the rows of another, at the rate of a BLAS library.

Every product is summed by itself, over its columns from the first to the last, in runs of `DEPTH`. So its
bits depend on the two rows alone: not on where they stand, which comes first, the width of the machine's
registers or the number of threads. A BLAS library promises none of this.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

__all__ = ["DEPTH", "WIDE", "pack", "panels", "products", "spread"]

Array = np.ndarray[Any, Any]

DEPTH = 64
"""Columns summed before they are added to the rest (chosen: half of it costs a tenth of the speed, twice as
many double the rounding)."""

_LANES = 16 if get_host_cpu_features().get("avx512f") else 8
_ROWS, WIDE = 6, 2 * _LANES
"""Rows of the left and of the right that are multiplied at once (chosen: twelve sums in registers keep two
units busy over the four cycles of a multiply-add, and leave room among AVX2's sixteen registers)."""


def panels(right: Array) -> Array:
    """Return a matrix (float32 [n, d]) as `products` wants its right side: [n / WIDE, d, WIDE].

    Rows that stand in for missing ones are zero.
    """
    out = np.zeros((-(-len(right) // WIDE), right.shape[1], WIDE), np.float32)
    pack(np.ascontiguousarray(right, np.float32), 0, out)
    return out


@numba.njit(nogil=True, cache=True)
def products(left: Any, a: int, b: int, right: Any, c: int, d: int, out: Any) -> None:
    """Fill `out[i - a, j - c]` with the product of row i of `left` and row j of the right side.

    a <= i < b and c <= j < d. `left`: float32 [m, width], contiguous; `right`: the `panels` of a matrix.
    """
    tile = np.empty((_ROWS, WIDE), np.float32)
    for panel in range(c // WIDE, (d + WIDE - 1) // WIDE):
        y = panel * WIDE
        low, high = max(c - y, 0), min(d - y, WIDE)
        for i in range(a, b, _ROWS):
            _multiply(left, i, b, right, panel, tile)
            for x in range(min(_ROWS, b - i)):
                line, sums = out[i - a + x, y + low - c : y + high - c], tile[x, low:high]
                for at in range(high - low):
                    line[at] = sums[at]


@numba.njit(nogil=True, cache=True)
def pack(right: Any, first: int, out: Any) -> None:
    """Write rows into panels, as their rows from `first` on."""
    for row in range(right.shape[0]):
        panel, lane = out[(first + row) // WIDE], (first + row) % WIDE
        for t in range(right.shape[1]):
            panel[t, lane] = right[row, t]


@intrinsic
def _multiply(context: Any, left: Any, row: Any, end: Any, right: Any, panel: Any, tile: Any) -> Any:
    """Write into `tile` the products of `_ROWS` rows from `row` on with a panel: the last for those after it.

    Written in the compiler's own terms, because no loop makes it hold a tile of sums in registers.
    """
    if any(kind.dtype != types.float32 or kind.layout != "C" for kind in (left, right, tile)):
        raise TypingError("products are of contiguous float32 matrices")
    return types.void(left, types.int64, types.int64, right, types.int64, tile), _build


def _build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    matrix, panels_, tile = (
        context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 3, 5)
    )
    number, lanes = ir.IntType(64), ir.VectorType(ir.FloatType(), _LANES)
    width, zero = builder.extract_value(matrix.shape, 1), ir.Constant(lanes, [0.0] * _LANES)
    multiply_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(lanes, [lanes] * 3), f"llvm.fmuladd.v{_LANES}f32"
    )

    def least(one: Any, other: Any) -> Any:
        return builder.select(builder.icmp_signed("<", one, other), one, other)

    def vector(data: Any, at: Any) -> Any:
        return builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())

    last = builder.sub(arguments[2], number(1))
    begins = [
        builder.mul(least(builder.add(arguments[1], number(x)), last), width) for x in range(_ROWS)
    ]  # of the left rows
    panel = builder.gep(panels_.data, [builder.mul(arguments[4], builder.mul(width, number(WIDE)))])
    places = [(x, half) for x in range(_ROWS) for half in range(2)]
    sums = {place: cgutils.alloca_once(builder, lanes) for place in places}  # registers, once optimised
    totals = {(x, half): vector(tile.data, number(x * WIDE + half * _LANES)) for x, half in places}
    for place in places:
        builder.store(zero, totals[place], align=4)
    with cgutils.for_range_slice(builder, number(0), width, number(DEPTH)) as (begin, _):
        for place in places:
            builder.store(zero, sums[place])
        end = least(builder.add(begin, number(DEPTH)), width)
        with cgutils.for_range_slice(builder, begin, end, number(1)) as (t, _):
            at = builder.mul(t, number(WIDE))
            halves = [
                builder.load(vector(panel, builder.add(at, number(half * _LANES))), align=4)
                for half in range(2)
            ]
            for x in range(_ROWS):
                one = builder.load(builder.gep(matrix.data, [builder.add(begins[x], t)]))
                everywhere = spread(builder, one, lanes)
                for half in range(2):
                    total = builder.load(sums[x, half])
                    builder.store(
                        builder.call(multiply_add, [everywhere, halves[half], total]), sums[x, half]
                    )
        for place in places:
            total = builder.load(totals[place], align=4)
            builder.store(builder.fadd(total, builder.load(sums[place])), totals[place], align=4)
    return context.get_dummy_value()


def spread(builder: Any, one: Any, lanes: Any) -> Any:
    """Return a value in all lanes of a vector type, in the compiler's own terms."""
    nothing, index = ir.Constant(lanes, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(nothing, one, index(0))
    places = ir.Constant(ir.VectorType(index, lanes.count), [0] * lanes.count)
    return builder.shuffle_vector(first, nothing, places)
