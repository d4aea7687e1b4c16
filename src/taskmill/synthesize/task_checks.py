"""What is wrong with a proposed task, going by its words and fields; duplicates at three levels.

Each check gives one reason of the closed set and a sentence of evidence. What needs the rows is in
`synthesize.task_evidence`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any

from taskmill.record import DatasetMeta, Dropped, Reason
from taskmill.registry import nearest
from taskmill.synthesize.proposals import Proposal, dropped
from taskmill.templates.values import as_text, fold, head_of, names_in, overlaps

__all__ = ["NEAR", "check", "duplicates", "plain", "triples"]

NEAR = 0.8
"""Share of equal words from which two instructions over the same fields are one (chosen, as in `curate`)."""

RUN = 6
"""Words in a row that an instruction may not share with a sample (chosen: shorter runs are phrases)."""

_BOOKKEEPING = frozenset(
    """
    uuid guid url uri urls md5 sha sha1 sha256 checksum filename filepath repo repository license licence
    """.split()  # noqa: SIM905
)
_BOOKKEEPING_LAST = frozenset("id ids idx path link hash doi timestamp bytes".split())  # noqa: SIM905
_OPTION_NAMES = frozenset(
    """
    option options choice choices alternative alternatives candidate candidates ending endings answers
    """.split()  # noqa: SIM905
)
_OPTION_WORDS = re.compile(
    r"\b(?:multiple[- ]choice|which of the following"
    r"|(?:given|from|among|of|the|these|provided|following|possible|available|answer|listed|correct|right|best)"
    r"\s+(?:\w+\s+){0,2}(?:options?|choices|alternatives|candidates))\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“”«»]([^\"“”«»]{3,})[\"“”«»]|(?<!\w)'([^']{3,})'(?!\w)")


def check(proposal: Proposal, meta: DatasetMeta | None = None) -> Dropped | None:
    """Return why a task cannot be used, None if nothing is wrong; `meta` is what is known of its dataset.

    Without `meta`, fields are not looked up and instructions are not held against samples.
    """
    for wrong in _CHECKS:
        found = wrong(proposal, meta)
        if found is not None:
            return dropped(proposal, *found)
    return None


Wrong = tuple[Reason, str] | None


def _empty(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    for name in ("instruction", "input_fields", "output_field"):
        if not getattr(proposal, name):
            return Reason.EMPTY, f"{name} is empty"
    return None


def _unknown_field(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    if meta is None or not meta.fields:
        return None
    known = [field.name for field in meta.fields]
    for path in (*proposal.input_fields, proposal.output_field):
        if head_of(path, known) not in known:
            return Reason.UNKNOWN_FIELD, f"{meta.key} has no field {path!r}.{nearest(path, known)}"
    return None


def _overlap(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    for path in proposal.input_fields:
        if overlaps(path, proposal.output_field):
            return Reason.OVERLAP, f"the output {proposal.output_field!r} is in the input {path!r}"
    return None


def _bookkeeping(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    fields = {field.name: field for field in meta.fields} if meta else {}
    target = fields.get(head_of(proposal.output_field, list(fields)))
    if target is not None and target.hidden and "in every row" not in target.hidden:
        return Reason.METADATA_TARGET, f"{target.name!r} holds {target.hidden.removeprefix('holds ')}"
    name = names_in(proposal.output_field)
    size = {"file", "size"} <= set(name) or {"repo", "name"} <= set(name)
    if _BOOKKEEPING & set(name) or (name and name[-1] in _BOOKKEEPING_LAST) or size:
        return Reason.METADATA_TARGET, f"the output {proposal.output_field!r} is book-keeping, not content"
    inputs = [names_in(path) for path in proposal.input_fields]
    if all(_BOOKKEEPING & set(own) or (own[-1:] and own[-1] in _BOOKKEEPING_LAST) for own in inputs):
        return Reason.METADATA_TARGET, f"the input is only book-keeping: {', '.join(proposal.input_fields)}"
    return None


def _missing_options(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    spoken = _OPTION_WORDS.search(proposal.instruction)
    if spoken is None or proposal.labels:
        return None
    rest = proposal.instruction[spoken.end() :]
    if re.match(r"\s*(?::|\(|are\b|is\b|[\"'“])", rest) or re.search(r":.*,|\(\s*A\s*\)", rest):
        return None  # the instruction itself lists them
    types = {field.name: field.type for field in meta.fields} if meta else {}
    numbered: Counter[str] = Counter()
    for path in proposal.input_fields:
        name = names_in(path)
        if _OPTION_NAMES & set(name) or types.get(path, "").startswith("list<"):
            return None
        numbered[" ".join(word for word in name if not word.isdigit() and len(word) > 1)] += 1
    if numbered and max(numbered.values()) > 1:
        return None  # ending 1 and ending 2, option a and b
    return Reason.MISSING_OPTIONS, f"it speaks of options ({spoken[0]!r}), and no input field holds any"


def _instance_wording(proposal: Proposal, meta: DatasetMeta | None) -> Wrong:
    labels = {fold(label) for label in proposal.labels}
    labels |= {fold(label) for field in meta.fields for label in field.labels} if meta else set()
    values = [" ".join(fold(text).split()) for text in _sample_texts(meta)] if meta else []
    for match in _QUOTED.finditer(proposal.instruction):
        quoted = fold(match[1] or match[2])
        if quoted in labels or all(fold(part) in labels for part in re.split(r",|\bor\b", quoted)):
            continue
        if len(quoted.split()) >= 4 or (len(quoted) > 3 and any(quoted in value for value in values)):
            return Reason.INSTANCE_WORDING, f"it quotes {quoted[:60]!r}"
    said = fold(proposal.instruction).split()
    for start in range(len(said) - RUN + 1):
        run = " ".join(said[start : start + RUN])
        if any(run in value for value in values):
            return Reason.INSTANCE_WORDING, f"a row has the words {run!r}"
    return None


def _sample_texts(meta: DatasetMeta | None) -> Iterable[str]:
    for sample in meta.samples if meta else ():
        for value in json.loads(sample).values():
            yield as_text(value)


_CHECKS: tuple[Callable[[Proposal, DatasetMeta | None], Wrong], ...] = (
    _empty,
    _unknown_field,
    _overlap,
    _bookkeeping,
    _missing_options,
    _instance_wording,
)


# duplicates


def duplicates(
    proposals: Sequence[Proposal], data: Mapping[str, str] | None = None, near: float = NEAR
) -> list[tuple[Proposal, Dropped | None]]:
    """Return each task with why it goes as a repetition of one before it, None where it stays.

    Two tasks are one if they ask for the same output of the same input fields of the same data, with an
    instruction that is equal byte by byte, equal but for case, spaces and punctuation, or has `near` of its
    words in common (Jaccard). `data` (key of a dataset → digest) tells data that is the same under two names;
    tasks that name no dataset are taken to be about one. The detail names the level. Of equals the first by
    mode (rules, aware, unaware, other), then by id, stays, so that the order of the list changes nothing.
    """
    order = sorted(range(len(proposals)), key=lambda i: (_rank(proposals[i]), proposals[i].id, i))
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i in order:
        groups[_place(proposals[i], data or {})].append(i)
    lost: dict[int, Dropped] = {}
    for members in groups.values():
        lost.update(_same_words([(i, proposals[i]) for i in members]))
        left = [i for i in members if i not in lost]
        lost.update(_near_words([(i, proposals[i]) for i in left], near))
    return [(proposal, lost.get(i)) for i, proposal in enumerate(proposals)]


def _rank(proposal: Proposal) -> int:
    order = ("rules", "aware", "unaware")
    return order.index(proposal.mode) if proposal.mode in order else len(order)


def _place(proposal: Proposal, data: Mapping[str, str]) -> tuple[Any, ...]:
    where = data.get(proposal.key) or proposal.dataset
    fields = sorted(path.casefold().strip() for path in proposal.input_fields)
    return where, tuple(fields), proposal.output_field.casefold().strip()


def plain(instruction: str) -> str:
    """Return the words of an instruction, without case and punctuation."""
    return " ".join(re.findall(r"\w+", instruction.casefold()))


def _same_words(members: Sequence[tuple[int, Proposal]]) -> Iterable[tuple[int, Dropped]]:
    exact: dict[str, Proposal] = {}
    alike: dict[str, Proposal] = {}
    for i, proposal in members:
        words = plain(proposal.instruction)
        first = exact.get(proposal.instruction)
        if first is not None:
            yield i, dropped(proposal, Reason.DUPLICATE, f"exact: the instruction of {first.id}", 1.0)
        elif words in alike:
            detail = f"normalised: but for case and punctuation that of {alike[words].id}"
            yield i, dropped(proposal, Reason.DUPLICATE, detail, 1.0)
        exact.setdefault(proposal.instruction, proposal)
        alike.setdefault(words, proposal)


def _near_words(members: Sequence[tuple[int, Proposal]], near: float) -> Iterable[tuple[int, Dropped]]:
    """Yield each task that has `near` of its words (Jaccard) in common with one that stays before it.

    Exact: with the rarest words first, two sets that are so alike share one of their first
    n - ceil(near · n) + 1 words (prefix filter: Chaudhuri et al. 2006), so only such pairs are compared.
    """
    sets = [frozenset(plain(proposal.instruction).split()) for _, proposal in members]
    counts = Counter(word for words in sets for word in words)
    staying: dict[str, list[int]] = defaultdict(list)
    for at, ((i, proposal), words) in enumerate(zip(members, sets, strict=True)):
        reach = len(words) - ceil(near * len(words) - 1e-9) + 1
        first = sorted(words, key=lambda word: (counts[word], word))[:reach]
        for other in sorted({place for word in first for place in staying[word]}):
            score = len(words & sets[other]) / len(words | sets[other])
            if score >= near:
                detail = f"near: {score:.2f} of the words are those of {members[other][1].id}"
                yield i, dropped(proposal, Reason.DUPLICATE, detail, score)
                break
        else:
            for word in first:
                staying[word].append(at)


def triples(proposals: Iterable[Proposal]) -> dict[str, int]:
    """Count distinct instructions, and tasks whose (dataset, input fields, output) one before has too."""
    instructions: set[str] = set()
    found: Counter[tuple[str, tuple[str, ...], str]] = Counter()
    for proposal in proposals:
        instructions.add(proposal.instruction)
        found[proposal.key, proposal.input_fields, proposal.output_field] += 1
    repeated = sum(count - 1 for count in found.values())
    return {"distinct_instructions": len(instructions), "duplicate_triples": repeated}
