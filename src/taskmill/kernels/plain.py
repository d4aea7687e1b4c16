"""The words of ASCII text, sixty-four bytes at a time: what `kernels.words` does for most rows.

A byte of a word is a letter or a digit. Comparing 64 bytes gives a number of 64 bits, whose changes from 0 to
1 and back are the words' borders; and the hash of a word takes in eight bytes without asking where it ends:
zeros after its end multiply the value by a known number, of which the inverse undoes it. So hardly a branch
depends on the text, and the processor works on several words at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from taskmill.kernels.text import MIX_1, MIX_2, OFFSET, PRIME

__all__ = ["count", "eight", "fill", "lowest", "mix"]

Array = np.ndarray[Any, Any]

_BLOCK = 64
_BYTES = ir.VectorType(ir.IntType(8), _BLOCK)
_OFFSET, _PRIME = np.uint64(OFFSET), np.uint64(PRIME)
_MIX_1, _MIX_2 = np.uint64(MIX_1), np.uint64(MIX_2)
_SMALL = np.uint64(0x2020202020202020)  # makes letters lower-case and leaves digits as they are
_ONE, _TOP, _BYTE = np.uint64(1), np.uint64(63), np.uint64(0xFF)
_KEEP = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # the first bytes of eight
_UNDO = np.array([pow(PRIME, size - 8, 1 << 64) for size in range(9)], np.uint64)


@numba.njit(nogil=True, cache=True, inline="always")
def mix(value: Any) -> Any:
    """Spread a 64-bit value over all bits (the finalizer of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def count(data: Any, begin: int, end: int) -> int:
    """Return the number of words in `data[begin:end]`, or -1 if it is not ASCII or near the end of `data`."""
    if end + _BLOCK > len(data):
        return -1
    found, before, high = 0, np.uint64(0), np.uint64(0)
    for at in range(begin, end, _BLOCK):
        inside = _word_bits(data, at) & _first_bits(end - at)
        high |= _high_bits(data, at) & _first_bits(end - at)
        found += _ones(inside & ~((inside << _ONE) | before))
        before = inside >> _TOP
    return -1 if high else found


@numba.njit(nogil=True, cache=True)
def fill(data: Any, begin: int, end: int, starts: Any, ends: Any, hashes: Any) -> None:
    """Write the words of ASCII text: where in `data` each starts and ends (int64), and its hash (uint64)."""
    before, opened, closed = np.uint64(0), 0, 0
    for at in range(begin, end, _BLOCK):
        inside = _word_bits(data, at) & _first_bits(end - at)
        after = (inside << _ONE) | before  # the bits behind those of words
        before = inside >> _TOP
        bits = inside & ~after
        while bits:
            starts[opened] = at + lowest(bits)
            opened += 1
            bits &= bits - _ONE
        bits = after & ~inside
        while bits:
            ends[closed] = at + lowest(bits)
            closed += 1
            bits &= bits - _ONE
    if closed < opened:  # the last word fills the last block
        ends[closed] = end
    for number in range(opened):
        hashes[number] = _hash(data, starts[number], ends[number])


@numba.njit(nogil=True, cache=True, inline="always")
def _hash(data: Any, at: Any, end: Any) -> Any:
    """Return FNV-1a of the bytes in lower case, mixed: what `kernels.text` computes byte by byte."""
    value = _OFFSET
    while end - at > 8:
        value = _take(value, eight(data, at) | _SMALL)
        at += 8
    value = _take(value, (eight(data, at) | _SMALL) & _KEEP[end - at])
    return mix(value * _UNDO[end - at])


@numba.njit(nogil=True, cache=True, inline="always")
def _take(value: Any, word: Any) -> Any:
    for byte in range(8):
        value = (value ^ ((word >> np.uint64(8 * byte)) & _BYTE)) * _PRIME
    return value


@numba.njit(nogil=True, cache=True, inline="always")
def _first_bits(size: Any) -> Any:
    if size >= _BLOCK:
        return ~np.uint64(0)
    return (_ONE << np.uint64(size)) - _ONE


# In the compiler's own terms: what no loop says well.


@intrinsic
def eight(context: Any, data: Any, at: Any) -> Any:
    """Load eight bytes from `data[at]` on, aligned or not."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(context, builder, signature, arguments, context.get_value_type(types.uint64))

    return types.uint64(data, types.int64), build


@intrinsic
def _word_bits(context: Any, data: Any, at: Any) -> Any:
    """Return which of 64 bytes are letters or digits, the first in the lowest bit."""

    def inside(builder: Any, block: Any) -> Any:
        def among(values: Any, first: int, size: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(values, _all(first)), _all(size))

        letters = among(builder.or_(block, _all(0x20)), ord("a"), 26)
        return builder.or_(letters, among(block, ord("0"), 10))

    return _bits_where(inside, data)


@intrinsic
def _high_bits(context: Any, data: Any, at: Any) -> Any:
    """Return which of 64 bytes are not ASCII."""
    return _bits_where(lambda builder, block: builder.icmp_signed("<", block, _all(0)), data)


@intrinsic
def _ones(context: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


@intrinsic
def lowest(context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set; there must be one."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), build


def _bits_where(tell: Callable[[Any, Any], Any], data: Any) -> Any:
    """Return the signature and code of asking 64 bytes something: a bit of the answer for each."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _load(context, builder, signature, arguments, _BYTES)
        return builder.bitcast(tell(builder, block), ir.IntType(_BLOCK))

    return types.uint64(data, types.int64), build


def _all(byte: int) -> Any:
    return ir.Constant(_BYTES, [byte] * _BLOCK)


def _load(context: Any, builder: Any, signature: Any, arguments: Any, kind: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = builder.gep(array.data, [arguments[1]])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=1)
