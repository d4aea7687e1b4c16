"""Find what is wrong in template files: all faults of all files at once, each with file, line and rule.

The rules are those that public collections break (google-research/FLAN `flan/v2/templates.py`, June 2023:
answers in the input of inverted templates, options announced but not shown, 24 repeated option styles of 87,
a header fused with the next, wording that holds for some rows only). They look at wordings, never at rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taskmill.templates.schema import (
    ROLES,
    Cluster,
    Fault,
    Keyed,
    Template,
    find_files,
    read,
    read_yaml,
    slots,
)

__all__ = ["RULES", "lint"]

RULES = {
    "unreadable": "the file cannot be read",
    "broken-yaml": "the file is not YAML",
    "broken-schema": "a key has not the kind of value it must have",
    "broken-jinja": "a template is not MiniJinja",
    "unknown-key": "a key that nothing reads",
    "unknown-slot": "a slot that is no field of the cluster",
    "missing-input": "no `input`, or an input that shows nothing of the row",
    "empty-input": "an `input` without words or slots",
    "missing-slot": "the input leaves out a field that every row has",
    "missing-target": "no `target`, an empty one, or one that does not hold the field that is asked for",
    "leaked-target": "the input shows a field that the target asks for",
    "options-without-options": "the input speaks of options but shows none",
    "duplicate-template": "a name or a text that an earlier template has",
    "duplicate-style": "differs from an earlier template or entry in marks, case or spaces only",
    "instance-specific": "says something that holds for some rows only (a count, a label, a number)",
    "fused-text": "two texts run into each other, as after a forgotten comma",
    "duplicate-cluster": "two files describe the same cluster",
}
"""Rule → what it finds. The names are part of the command's output and stay."""

_OPTIONS = re.compile(
    r"\b(options?|alternatives?|candidates?|choices?|multiple[- ]choice|"
    r"(choose|pick|select|decide) (one |the \w+ )?(from|of|between|among)|"
    r"which (one )?of (the following|these|them))\b",
    re.IGNORECASE,
)
_NUMBER = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|\d+)"
_UNITS = r"(?:words?|sentences?|options?|choices?|answers?|alternatives?|paragraphs?|lines?|tokens?|letters?)"
_SPECIFIC = (
    # "a sentence" and "one of the options" hold everywhere; "in one sentence", "the four options" do not.
    (re.compile(rf"\b(?!one of\b){_NUMBER}[- ](?:\w+ )?{_UNITS}\b", re.IGNORECASE), "a count"),
    (
        re.compile(r"\b(?:a|in a|as a) single (?:word|sentence|line|paragraph|letter)\b", re.IGNORECASE),
        "a count",
    ),
    (re.compile(r"\([A-Ea-e1-5]\)|\b[A-E], [A-E],? (?:or|and) [A-E]\b|\b[A-E] or [A-E]\b"), "option labels"),
    (re.compile(r"\b(?:19|20)\d\d\b"), "a year"),
)
_LABELS = re.compile(
    r"\b(yes or no|yes/no|true or false|true/false|(?:positive|negative)(?:,| or) (?:\w+ or )?"
    r"(?:positive|negative|neutral)|entailment|contradict\w*|not[_ ]entailment|neutral)\b",
    re.IGNORECASE,
)
_FUSED = re.compile(r"[a-z]{2}[.:!?][A-Z][a-z]")
_WORDS = re.compile(r"\w+")
_QUOTED = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def lint(path: str | Path) -> list[Fault]:
    """Return every fault of a template file, or of all files of a folder, in the order of file and line.

    A file of lists (option styles, endings, delimiters) is held against the rules for lists. Raises
    InputError where `path` names no YAML file.
    """
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for file in find_files(path):
        loaded, broken = read_yaml(file)
        if broken:
            faults += broken
        elif isinstance(loaded, Keyed) and "templates" in loaded:
            cluster, found = read(file)
            faults += found
            if cluster is not None:
                faults += _cluster(cluster, loaded)
                first = seen.setdefault(cluster.name, str(file))
                if first != str(file):
                    message = f"{first} describes {cluster.name} too; rename one"
                    faults.append(Fault(str(file), loaded.at("cluster"), "duplicate-cluster", message))
        elif isinstance(loaded, Keyed) and any(isinstance(v, list) for v in loaded.values()):
            faults += _lists(loaded, str(file))
        else:
            message = "there is neither a list `templates` nor lists of styles; see the page on templates"
            faults.append(Fault(str(file), 1, "broken-schema", message))
    return sorted(faults, key=lambda f: (f.file, f.line, f.rule, f.message))


def _cluster(cluster: Cluster, loaded: Keyed) -> Iterator[Fault]:
    """Yield what the wordings of a cluster break; the keys tell the lines of each template."""
    entries = {entry.line: entry for entry in loaded["templates"] if isinstance(entry, Keyed)}
    names: dict[str, int] = {}
    texts: dict[str, tuple[int, str]] = {}
    bare: dict[tuple[str, ...], int] = {}
    for template in cluster.templates:
        entry = entries[template.line]
        for rule, key, message in _template(template, entry, cluster):
            yield Fault(cluster.file, entry.at(key), rule, message)
        yield from _again(template, entry, cluster.file, names, texts, bare)


def _again(
    template: Template,
    entry: Keyed,
    file: str,
    names: dict[str, int],
    texts: dict[str, tuple[int, str]],
    bare: dict[tuple[str, ...], int],
) -> Iterator[Fault]:
    first = names.setdefault(template.name, entry.line)
    if first != entry.line:
        message = f"line {first} has the name {template.name!r} too; rename one"
        yield Fault(file, entry.at("name"), "duplicate-template", message)
    shown = f"{template.input or template.with_options}\x1f{template.target}"
    exact = " ".join(shown.split())
    line, _ = texts.setdefault(exact, (entry.line, template.name))
    words = (*_WORDS.findall(shown.casefold()), template.target)
    similar = bare.setdefault(words, entry.line)
    if line != entry.line:
        message = f"the template of line {line} has the same text; remove one"
        yield Fault(file, entry.line, "duplicate-template", message)
    elif similar != entry.line:
        message = f"differs from line {similar} in marks and case only; reword one"
        yield Fault(file, entry.line, "duplicate-style", message)


def _template(template: Template, entry: Keyed, cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, key of the template, message)."""
    asked = slots(template.target)
    # Without a text of its own, the style with options is the input and the list behind it.
    texts = [("input", template.input or template.with_options)]
    if template.input and isinstance(entry.get("options"), str):
        texts.append(("options", template.with_options))
    for key, text in texts:
        yield from _input(key, text, asked, cluster)
    if len(texts) > 1 and "options" not in slots(template.with_options):
        message = "the wording with options shows none; add {{ options }}, or write `options: false`"
        yield "options-without-options", "options", message
    if not template.target.strip():
        yield "missing-target", "target", "the target is empty; write the slot of what is asked for"
    elif cluster.asked not in asked and not _asks_other(asked, cluster):
        message = f"the target does not hold {{{{ {cluster.asked} }}}}, which is asked for; add the slot"
        yield "missing-target", "target", message
    for slot in sorted(asked - set(cluster.fields)):
        yield "unknown-slot", "target", _unknown(slot, cluster)
    for key, text in (*texts, ("target", template.target)):
        for message in _specific(text, cluster):
            yield "instance-specific", key, message
        if found := _FUSED.search(_QUOTED.sub("", text)):
            yield "fused-text", key, f"{found[0]!r} looks like two texts in one; put a space between"


def _asks_other(asked: frozenset[str], cluster: Cluster) -> bool:
    """Say whether a target asks for another field on purpose: an inverted template written by hand."""
    return any(cluster.fields[slot].invertible for slot in asked & set(cluster.fields))


def _input(key: str, text: str, asked: frozenset[str], cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    words = _QUOTED.sub(" ", text)
    if not text.strip():
        yield "empty-input", key, "the input is empty; write what the model is given"
        return
    found = slots(text)
    if not found:
        yield "missing-input", key, "the input shows no field of the row; add a slot"
        return
    unknown = found - set(cluster.fields)
    for slot in sorted(unknown):
        yield "unknown-slot", key, _unknown(slot, cluster)
    if cluster.asked in asked and not unknown:  # a misspelt slot is one fault, not two
        for slot in sorted(_needed(cluster) - found):
            message = f"{{{{ {slot} }}}} is left out; add it, or declare the field `optional` or `droppable`"
            yield "missing-slot", key, message
    for slot in sorted(found & asked - {"options"}):
        yield "leaked-target", key, f"{{{{ {slot} }}}} is what the target asks for; remove it from the input"
    said = _OPTIONS.search(words)
    if said and "options" not in found:
        message = f"{said[0]!r}, but no {{{{ options }}}} is shown; add the slot or reword"
        yield "options-without-options", key, message


def _needed(cluster: Cluster) -> set[str]:
    """Return the fields that every wording must show."""
    aside = {cluster.asked, "rationale", "options"}
    return {r for r, f in cluster.fields.items() if r not in aside and not (f.optional or f.droppable)}


def _unknown(slot: str, cluster: Cluster) -> str:
    known = ", ".join(cluster.fields)
    role = "declare it under `fields`" if slot in ROLES else "use one of them"
    return f"{{{{ {slot} }}}} is no field of this cluster ({known}); {role}"


def _specific(text: str, cluster: Cluster) -> Iterator[str]:
    words = _QUOTED.sub(" ", text)
    holds = {" ".join(label.casefold().split()) for label in cluster.labels}
    for pattern, what in _SPECIFIC:
        for found in pattern.finditer(words):
            if found[0].casefold() not in holds:
                yield f"{found[0]!r} is {what} that not every row has; reword, or list it under `labels`"
    for found in _LABELS.finditer(words):
        if found[0].casefold() not in holds:
            yield f"{found[0]!r} names labels that not every set has; reword, or list it under `labels`"


def _lists(loaded: Keyed, file: str) -> Iterator[Fault]:
    """Yield the repeated, empty and fused entries of a file of lists."""
    for key, entries in loaded.items():
        if not isinstance(entries, list):
            continue
        line, seen = loaded.at(key), {}  # type: int, dict[str, int]
        for number, entry in enumerate(entries, 1):
            at = entry.line if isinstance(entry, Keyed) else line
            shown = _shown(entry)
            first = seen.setdefault(shown, number)
            if first != number:
                message = f"entry {number} of `{key}` repeats entry {first}; remove it"
                yield Fault(file, at, "duplicate-style", message)
            for text in _texts(entry):
                if found := _FUSED.search(_QUOTED.sub("", text)):
                    message = (
                        f"entry {number} of `{key}`: {found[0]!r} looks like two texts in one; part them"
                    )
                    yield Fault(file, at, "fused-text", message)


def _shown(entry: Any) -> str:
    if isinstance(entry, Keyed):
        # What an entry is called makes it no other style.
        return repr(sorted((k, str(v)) for k, v in entry.items() if k != "name"))
    return repr(entry)


def _texts(entry: Any) -> Sequence[str]:
    if isinstance(entry, Keyed):
        return [v for v in entry.values() if isinstance(v, str)]
    return [entry] if isinstance(entry, str) else []
