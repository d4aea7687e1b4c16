"""A Jinja environment for templates of unknown origin: few nodes, few functions, a fixed amount of work.

Jinja's own sandbox keeps templates away from Python's internals, but not from memory and time. Here only the
syntax and the functions that prompt templates need exist, and each rendering has an amount of *fuel*: loops,
functions and operators pay for the values they go through. What is left unpaid is bounded by the length of
the source and of the row.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from taskmill.errors import ConfigError, InputError
from taskmill.ids import draw

__all__ = ["FUEL", "MAX_OUTPUT", "MAX_SOURCE", "RESERVED", "compiled", "parse", "rendered"]

FUEL = 1_000_000
"""Values (or 16 characters of text) that one rendering may go through: about a second. Chosen."""
MAX_OUTPUT = 1_000_000
"""Characters that one rendering may write. Chosen: no passage of a prompt collection is nearly as long."""
MAX_SOURCE = 65_536
"""Characters of a template. Chosen: the longest of promptsource has about 4,000."""
RESERVED = "_taskmill_"
"""Names that start like this belong to us and are refused in templates."""

_MAX_INT = 2**64
_SYNTAX = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Slice),
    *(nodes.Getitem, nodes.Getattr, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Concat),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
)
# In one text each: as lists they would fill a screen.
_WORDS = {
    "methods": """split rsplit splitlines strip lstrip rstrip lower upper title capitalize casefold startswith
        endswith index find rfind count replace join isdigit isalpha isupper islower partition rpartition
        items keys values get""",
    "filters": """abs capitalize count d default dictsort first float int items last length list lower map max
        min reject rejectattr select selectattr sort string title truncate unique upper wordcount""",
}
_METHODS, _FILTERS = (frozenset(_WORDS[kind].split()) for kind in ("methods", "filters"))


@dataclass
class _Session:
    """What one rendering may still use, and where its draws come from."""

    seed: int
    row: str
    purpose: str
    fuel: int = FUEL
    draws: int = 0


_session: ContextVar[_Session] = ContextVar("taskmill_template_session")


# paying


def _weight(*values: Any) -> int:
    """Return the number of values inside, texts by 16 characters each; it stops where the fuel ends."""
    total, stack, enough = 0, list(values), _session.get().fuel
    while stack and total <= enough:
        value = stack.pop()
        total += 1
        if isinstance(value, str):
            total += len(value) // 16
        elif isinstance(value, dict):
            stack.extend(value)
            stack.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            stack.extend(value)
        elif isinstance(value, range):
            total += len(value)
    return total


def _spend(amount: int) -> None:
    session = _session.get()
    session.fuel -= max(amount, 0)
    if session.fuel < 0:
        raise SecurityError("it needs more work or memory than a template may use")


def _paid(value: Any) -> Any:
    _spend(_weight(value))
    return value


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    # `wraps` keeps the mark by which Jinja knows which first argument (environment, context) it passes.
    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        _spend(_weight(*args, *kwargs.values()))
        return _paid(function(*args, **kwargs))

    return metered


def _steps(iterable: Iterable[Any], cost: int) -> Iterator[Any]:
    for item in iterable:
        _spend(cost)
        yield item


# functions whose result is not bounded by their arguments, and those of promptsource


@jinja2.pass_eval_context
def _join(context: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
    items = list(value)
    _spend(_weight(items) + len(items) * _weight(d))
    return FILTERS["join"](context, items, d, attribute)


@jinja2.pass_eval_context
def _replace(context: Any, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    _spend(_weight(s, new) + str(s).count(str(old)) * _weight(new))
    return FILTERS["replace"](context, s, old, new, count)


def _trim(value: Any, chars: Any = None) -> Any:
    text = str(value)
    _spend(_weight(text) * _weight(chars))
    return text.strip(chars)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    # Jinja computes 10 ** precision for two of its methods.
    if not -20 <= precision <= 20:
        raise SecurityError(f"it rounds to {precision} digits")
    return FILTERS["round"](value, precision, method)


def _concat(parts: list[Any]) -> str:
    _spend(_weight(parts))
    return "".join([str(part) for part in parts])


def _range(*bounds: int) -> range:
    return range(*bounds)


def _choice(items: Sequence[Any]) -> Any:
    """Draw one of the items: by seed, row, template and the how-manieth draw it is."""
    session = _session.get()
    if not len(items):
        raise ValueError("there is nothing to choose from")
    number = draw(session.seed, session.row, f"{session.purpose}/choice/{session.draws}")
    session.draws += 1
    return items[number % len(items)]


def _most_frequent(items: Iterable[Any]) -> list[Any]:
    """Return all items that appear most often, in the order of their first appearance."""
    counted = Counter(items).most_common()
    return [item for item, times in counted if times == counted[0][1]]


def _times(left: Any, right: Any) -> Any:
    for some, times in ((left, right), (right, left)):
        if isinstance(some, str | list | tuple) and isinstance(times, int):
            _spend(_weight(some) * times)
    return left * right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise SecurityError("formatting by % is not supported; use ~")
    return left % right


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "*": _times, "%": _modulo}


@jinja2.pass_context
def _shown(context: Context, value: Any) -> Any:
    # It takes the context only so that Jinja does not fold constants while it compiles, where nobody pays.
    if value is None:
        raise ValueError("it writes a null value")
    return value if isinstance(value, str) else _paid(value)


# the environment


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with an allow-list of attributes and with operators and calls that pay."""

    intercepted_binops = frozenset(_OPERATORS)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow methods by name, and what a loop and a namespace show."""
        known = attr in _METHODS or isinstance(obj, LoopContext | Namespace)
        return known and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Make `str.format` an attribute like any other: it is not on the list."""
        return

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Pay for both sides; integers must stay small."""
        _spend(_weight(left, right))
        result = _OPERATORS[operator](left, right)
        if isinstance(result, int) and abs(result) > _MAX_INT:
            raise SecurityError("a number grows too large")
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Pay for the arguments and for the result."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and args:
            if name == "join":
                args = (list(args[0]), *args[1:])
                _spend(len(args[0]) * _weight(owner))
            elif name == "replace":
                _spend(owner.count(args[0]) * _weight(*args[1:]))
            elif name.endswith("strip"):
                _spend(_weight(owner) * _weight(args[0]))
        _spend(_weight(owner, *args, *kwargs.values()))
        result = super().call(context, obj, *args, **kwargs)
        return _paid([*result] if isinstance(result, KeysView | ValuesView | ItemsView) else result)


def _environment() -> _Environment:
    environment = _Environment(undefined=jinja2.StrictUndefined, finalize=_shown, optimized=False)
    environment.globals = {
        "range": _range,
        "zip": lambda *lists: list(zip(*lists, strict=False)),
        "enumerate": lambda items, start=0: list(enumerate(items, start)),
        "namespace": Namespace,
    }
    environment.filters = {name: _metered(FILTERS[name]) for name in _FILTERS}
    environment.filters |= {
        "join": _join,
        "replace": _replace,
        "trim": _trim,
        "round": _round,
        "choice": _metered(_choice),
        "random": _metered(_choice),
        "most_frequent": _metered(_most_frequent),
        f"{RESERVED}steps": _steps,
        f"{RESERVED}paid": _paid,
        f"{RESERVED}concat": _concat,
    }
    return environment


_ENVIRONMENT = _environment()


class _Metering(NodeTransformer):
    """Make loops, assignments and `~` pay: the ways to repeat work, to keep a value and to join two."""

    def _call(self, name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, RESERVED + name, [*args], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  (the name is Jinja's)
        """One step costs as much as the loop has nodes."""
        cost = sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = self._call("steps", node.iter, nodes.Const(cost, lineno=node.lineno))
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Assign:  # noqa: N802
        self.generic_visit(node)
        node.node = self._call("paid", node.node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        return self._call("concat", nodes.List(node.nodes, lineno=node.lineno))


# parsing, compiling, rendering


def _refused(node: nodes.Node) -> str:
    """Return why a node may not stand in a template, or nothing."""
    if not isinstance(node, _SYNTAX):
        return f"{type(node).__name__} is not supported"
    if isinstance(node, nodes.Filter) and (
        node.name not in _ENVIRONMENT.filters or node.name.startswith(RESERVED)
    ):
        return f"the filter {node.name!r} is not supported"
    if isinstance(node, nodes.For) and node.recursive:
        return "recursive loops are not supported"
    if isinstance(node, nodes.Name | nodes.NSRef) and node.name.startswith(RESERVED):
        return f"the name {node.name!r} is reserved"
    return ""


def parse(source: str, what: str) -> nodes.Template:
    """Return the tree of a template; `what` names it in errors.

    Raises `ConfigError` where the source is too long, is not Jinja, or holds more than prompts need.
    """
    if len(source) > MAX_SOURCE:
        raise ConfigError(f"{what} has {len(source):,} characters; at most {MAX_SOURCE:,} are allowed")
    try:
        tree = _ENVIRONMENT.parse(source)
        wrong = next(filter(None, map(_refused, tree.find_all(nodes.Node))), "")
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{what}, line {error.lineno}, is not valid Jinja: {error.message}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{what} cannot be parsed ({error}); make it simpler") from None
    if wrong:
        raise ConfigError(f"{what} cannot be used: {wrong}; remove it from the template")
    return tree


def compiled(tree: nodes.Template, what: str) -> jinja2.Template:
    """Return the template of a tree from `parse`, metered; the tree is changed in place.

    Raises `ConfigError` where it is nested too deeply.
    """
    try:
        return _ENVIRONMENT.from_string(_Metering().visit(tree))
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{what} cannot be compiled ({error}); make it simpler") from None


def rendered(
    template: jinja2.Template, slots: Mapping[str, Any], what: str, *, seed: int = 0, row: str = ""
) -> str:
    """Return the text of a compiled template with `slots` (plain data only), at most MAX_OUTPUT characters.

    Draws depend on `seed`, `row` and `what` only. Raises `InputError` where the slots do not fit the
    template (a missing column, a null that would be written) or the rendering takes too much.
    """
    token = _session.set(_Session(seed, row, what))
    pieces, length = [], 0
    try:
        for piece in template.generate(dict(slots)):
            length += len(piece)
            if length > MAX_OUTPUT:
                raise SecurityError(f"it writes more than {MAX_OUTPUT:,} characters")
            pieces.append(piece)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise InputError(f"{what} cannot be rendered: {str(error).rstrip('.')}") from None
    except (AttributeError, RecursionError, MemoryError) as error:
        raise InputError(f"{what} cannot be rendered: {type(error).__name__} {error}") from None
    finally:
        _session.reset(token)
    return "".join(pieces)
