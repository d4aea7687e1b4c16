"""Meta-templating: a template that quotes a passage becomes one that quotes the placeholder instead.

Bonito (arXiv 2402.18334, section 3) re-casts the prompt templates of labelled data sets: the passage goes in
front, and the instruction (or the response) that quotes it carries `{{context}}` in its place. Here the
passage is found on the parsed tree: spacing and quotes do not matter, and a column that is only looked at
inside another expression is not a quotation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from itertools import islice
from numbers import Number
from typing import Any, NamedTuple, TypeGuard

import jinja2
from jinja2 import meta, nodes
from jinja2.visitor import NodeTransformer

from taskmill.errors import ConfigError, InputError
from taskmill.render import PLACEHOLDER, escape, has_placeholder
from taskmill.templates.sandbox import RESERVED, compiled, parse, rendered

__all__ = ["SEPARATOR", "Recast", "Rendered", "recast"]

SEPARATOR = "|||"
"""What divides instruction and response in a template, and answer choices in theirs (promptsource)."""

_PLACE, _SPLIT = f"{RESERVED}place", f"{RESERVED}split"
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_SIDES = ("instruction", "response")
_OF_PASSAGE, _OF_CHOICES = "the passage of ", "the answer choices of "


class Rendered(NamedTuple):
    """A row in a re-cast template.

    `passage` and `choices` (the answer choices) are plain text. `instruction` and `response` hold the
    placeholder where the passage is quoted and are escaped everywhere else: `taskmill.render.fill` puts the
    passage in and gives back the plain text. An empty response means that the template has nothing to say
    about the row. All texts are stripped.
    """

    passage: str
    instruction: str
    response: str
    choices: tuple[str, ...] = ()

    @property
    def places(self) -> frozenset[str]:
        """Where the placeholder stands in this row: a subset of {"instruction", "response"}."""
        return frozenset(side for side in _SIDES if has_placeholder(getattr(self, side)))


@dataclass(frozen=True)
class Recast:
    """A template whose passage is replaced by the placeholder; made by `recast`.

    `places` is where the placeholder can stand ("instruction", "response", or both), by the tree; `columns`
    are the columns of a row that template, passage and answer choices name.
    """

    name: str
    places: frozenset[str]
    columns: frozenset[str]
    _task: jinja2.Template = field(repr=False, compare=False)
    _passage: jinja2.Template = field(repr=False, compare=False)
    _choices: jinja2.Template | None = field(repr=False, compare=False)
    _taken: frozenset[str] = field(repr=False, compare=False)

    def render(self, row: Mapping[str, Any], *, seed: int = 0, row_id: str = "") -> Rendered:
        """Return the row in this template; `choice` in it depends on seed, row id and template name only.

        Raises `InputError`, with the columns at hand, where the row lacks a column, a null would be
        written, or the template asks too much.
        """
        slots = {column: _plain(value, column) for column, value in row.items()}
        # Single characters that stand nowhere in the row: no text of it can forge or join into a mark.
        place, split = _unused(slots, self._taken)
        slots |= {_PLACE: place, _SPLIT: split}

        # Each of the three draws for itself: what is named in errors enters the draw, too.
        def text(template: jinja2.Template, part: str = "") -> str:
            return rendered(template, slots, f"{part}template {self.name!r}", seed=seed, row=row_id)

        try:
            passage = text(self._passage, _OF_PASSAGE).strip()
            if self._choices is not None:
                options = text(self._choices, _OF_CHOICES).split(split)
                slots["answer_choices"] = [option.strip() for option in options]
            parts = text(self._task).split(split)
        except InputError as error:
            null = sorted(column for column, value in row.items() if value is None)
            nulls = f"; null: {', '.join(null)}" if null else ""
            raise InputError(f"{error}; the row has the columns {', '.join(row)}{nulls}") from None
        instruction, response = (
            PLACEHOLDER.join([escape(said) for said in part.strip().split(place)])
            for part in (parts[0], "".join(parts[1:]))
        )
        choices = tuple(slots["answer_choices"]) if self._choices is not None else ()
        return Rendered(passage, instruction, response, choices)


def recast(source: str, passage: str, *, answer_choices: str = "", name: str = "") -> Recast | None:
    """Replace the passage by the placeholder, wherever the template quotes it; None where it does not.

    `source` is a template "instruction ||| response" over the columns of a row, `passage` the Jinja text that
    writes the passage, for example "{{ context }}" or a loop, `answer_choices` the one that writes the
    choices with ||| between them. `name` is for errors, and makes the draws of two templates differ.

    Raises `ConfigError` where one of them is not Jinja or asks for more than the sandbox gives, where the
    passage names no column, and where the template has not exactly one ||| on the way through it.
    """
    what = f"template {name!r}"
    tree, quoted = parse(source, what), parse(passage, _OF_PASSAGE + what)
    options = parse(answer_choices, _OF_CHOICES + what) if answer_choices else None
    try:
        columns = set().union(
            *(meta.find_undeclared_variables(some) for some in (tree, quoted, options) if some)
        )
        tree.body = _Quotes(tree, quoted, what).replaced(tree.body)
        places = _places(tree.body, what)
    except (RecursionError, jinja2.TemplateError) as error:
        raise ConfigError(f"{what} cannot be compiled ({error}); make it simpler") from None
    if not places:
        return None
    if options:
        _split_constants(options)
    return Recast(
        name,
        places,
        frozenset(columns - {"answer_choices"}),
        compiled(tree, what),
        compiled(quoted, _OF_PASSAGE + what),
        compiled(options, _OF_CHOICES + what) if options else None,
        frozenset(_PRIVATE.findall(source + passage + answer_choices)),
    )


# the tree


def _pieces(body: list[nodes.Node]) -> list[nodes.Node]:
    """Return statements, and what stands in outputs (texts and expressions) one by one."""
    return [piece for node in body for piece in (node.nodes if isinstance(node, nodes.Output) else [node])]


def _is_text(node: nodes.Node) -> TypeGuard[nodes.TemplateData]:
    return isinstance(node, nodes.TemplateData)


def _marks(name: str, lineno: int) -> nodes.Name:
    return nodes.Name(name, "load", lineno=lineno)


class _Quotes:
    """The places of one template where its passage is quoted."""

    def __init__(self, tree: nodes.Template, quoted: nodes.Template, what: str) -> None:
        self.names = meta.find_undeclared_variables(quoted)
        self.wanted = _pieces(quoted.body)
        for edge, strip in ((0, str.lstrip), (-1, str.rstrip)):
            if self.wanted and _is_text(text := self.wanted[edge]):
                text.data = strip(text.data)
                if not text.data:
                    self.wanted.pop(edge)
        if not self.names:
            raise ConfigError(f"{_OF_PASSAGE}{what} names no column; write it like {{{{ context }}}}")
        stored = Counter(node.name for node in tree.find_all(nodes.Name) if node.ctx == "store")
        # A template that gives the passage's column another value quotes something else from there on.
        self.rebound = any(self._binds(node) for node in tree.find_all(nodes.Assign))
        self.copies = {
            node.target.name
            for node in tree.body
            if isinstance(node, nodes.Assign)
            and isinstance(node.target, nodes.Name)
            and [node.node] == self.wanted
            and stored[node.target.name] == 1
            and self._only_written(tree, node.target.name)
        }

    @staticmethod
    def _only_written(tree: nodes.Template, name: str) -> bool:
        """Say whether a variable is used in no other way than being written as it is."""
        written = sum(
            isinstance(piece, nodes.Name) and piece.name == name
            for output in tree.find_all(nodes.Output)
            for piece in output.nodes
        )
        return written == sum(n.name == name and n.ctx == "load" for n in tree.find_all(nodes.Name))

    def _binds(self, node: nodes.For | nodes.Assign) -> bool:
        targets = [node.target, *node.target.find_all(nodes.Name)]
        return any(isinstance(target, nodes.Name) and target.name in self.names for target in targets)

    def replaced(self, body: list[nodes.Node]) -> list[nodes.Node]:
        """Return the body with a mark in every place of the passage, and one for every |||."""
        pieces, done, i = _pieces(body), [], 0
        while i < len(pieces):
            lineno = pieces[i].lineno
            found = None if self.rebound else self._match(pieces, i)
            if found is None:
                done += self._inside(pieces[i])
                i += 1
                continue
            before, used, after = found
            done += _split_text(before, lineno)
            done.append(nodes.Output([_marks(_PLACE, lineno)], lineno=lineno))
            i += used
            if after:
                # What follows the passage in its last piece of text may start another quotation.
                i -= 1
                pieces[i] = nodes.TemplateData(after, lineno=lineno)
        return done

    def _match(self, pieces: list[nodes.Node], i: int) -> tuple[str, int, str] | None:
        """Return (text before the passage, pieces used, text after it) if the passage starts in piece `i`.

        Where the passage has words of its own at its ends, they may be part of a longer text.
        """
        have = pieces[i]
        if isinstance(have, nodes.Name) and have.name in self.copies:
            return "", 1, ""
        window = pieces[i : i + len(self.wanted)]
        if len(window) < len(self.wanted):
            return None
        before = after = ""
        last = len(window) - 1
        for k, (have, want) in enumerate(zip(window, self.wanted, strict=True)):
            if k == 0 and _is_text(have) and _is_text(want) and have.data.endswith(want.data):
                before = have.data.removesuffix(want.data)
            elif k == last and _is_text(have) and _is_text(want) and have.data.startswith(want.data):
                after = have.data.removeprefix(want.data)
            elif have != want:
                return None
        return before, len(window), after

    def _inside(self, node: nodes.Node) -> list[nodes.Node]:
        """Return a piece as statements, with the passage replaced in its branches."""
        if _is_text(node):
            return _split_text(node.data, node.lineno)
        if isinstance(node, nodes.Expr):
            return [nodes.Output([node], lineno=node.lineno)]
        if isinstance(node, nodes.If):
            for branch in node.elif_:
                self._inside(branch)
        if isinstance(node, nodes.If | nodes.For):
            outside = self.rebound
            self.rebound = outside or (isinstance(node, nodes.For) and self._binds(node))
            node.body = self.replaced(node.body)
            self.rebound = outside
            node.else_ = self.replaced(node.else_)
        return [node]


def _split_text(text: str, lineno: int) -> list[nodes.Node]:
    """Return outputs for a text, with a mark for every ||| in it."""
    parts: list[nodes.Expr] = []
    for i, part in enumerate(text.split(SEPARATOR)):
        if i:
            parts.append(_marks(_SPLIT, lineno))
        if part:
            parts.append(nodes.TemplateData(part, lineno=lineno))
    return [nodes.Output([part], lineno=lineno) for part in parts]


def _split_constants(tree: nodes.Template) -> None:
    """Put the mark for every ||| of the answer choices, in texts and in constants such as join's."""
    tree.body = [_ChoiceMarks().visit(node) for node in tree.body]


class _ChoiceMarks(NodeTransformer):
    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:  # noqa: N802  (Jinja's names)
        return self._marked(node, node.data)

    def visit_Const(self, node: nodes.Const) -> nodes.Expr:  # noqa: N802
        return self._marked(node, node.value)

    @staticmethod
    def _marked(node: nodes.Expr, value: Any) -> nodes.Expr:
        if not isinstance(value, str) or SEPARATOR not in value:
            return node
        parts: list[nodes.Expr] = []
        for i, part in enumerate(value.split(SEPARATOR)):
            parts += [_marks(_SPLIT, node.lineno)] * bool(i) + [nodes.Const(part, lineno=node.lineno)]
        return nodes.Concat(parts, lineno=node.lineno)


def _places(body: list[nodes.Node], what: str) -> frozenset[str]:
    """Return the sides on which the placeholder stands; every way through the tree has one ||| at most."""
    found: set[str] = set()

    def walk(body: list[nodes.Node], sides: frozenset[str]) -> frozenset[str]:
        """Return the sides on which the walk may be after `body`."""
        for node in body:
            for piece in node.nodes if isinstance(node, nodes.Output) else []:
                if isinstance(piece, nodes.Name) and piece.name == _PLACE:
                    found.update(sides)
                elif isinstance(piece, nodes.Name) and piece.name == _SPLIT:
                    if "response" in sides:
                        raise ConfigError(
                            f"{what} has more than one {SEPARATOR}; keep one on each way through it"
                        )
                    sides = frozenset({"response"})
            if isinstance(node, nodes.If):
                branches = [node.body, *(branch.body for branch in node.elif_), node.else_]
                sides = frozenset().union(*(walk(branch, sides) for branch in branches))
            elif (
                isinstance(node, nodes.For) and not walk(node.body, sides) == walk(node.else_, sides) == sides
            ):
                raise ConfigError(f"{what} has {SEPARATOR} in a loop; move it out of the loop")
        return sides

    if "response" not in walk(body, frozenset({"instruction"})):
        raise ConfigError(f"{what} has no {SEPARATOR} between instruction and response; add it")
    return frozenset(found)


# the row


def _plain(value: Any, column: str) -> Any:
    """Return a value as plain data, copied: templates reach no method of a foreign object."""
    if value is None or isinstance(value, str | Number):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {_plain(key, column): _plain(inner, column) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, column) for inner in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array of numpy or Arrow
        return _plain(value.tolist(), column)
    raise InputError(
        f"column {column!r} holds a {type(value).__name__}; convert it to text, numbers or lists"
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(inner)


def _unused(slots: Mapping[str, Any], taken: frozenset[str]) -> tuple[str, str]:
    """Return two private characters that no text of the row (and none of `taken`) holds."""
    used = {mark for text in _texts(slots) for mark in _PRIVATE.findall(text)} | taken
    free = list(islice((mark for code in range(0xE000, 0xF900) if (mark := chr(code)) not in used), 2))
    if len(free) < 2:
        raise InputError("the row uses every private character of Unicode; remove some (U+E000 to U+F8FF)")
    return free[0], free[1]
