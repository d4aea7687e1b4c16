"""Tasks made from text by rule, where no annotated dataset of an open licence has them.

Each construction reads one row (its passage, its other columns) and yields casts: a task type, the
passage, the slots of its wordings and the response. A rule yields nothing where it is not sure: a
missing row costs less than a wrong one. The rules are for English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from taskmill.synthesize.rewriting import (
    Row,
    capital,
    cased,
    denied,
    own_sentences,
    retold,
    reworded,
    rules,
    shortened,
    stands_alone,
    turned,
)
from taskmill.tasks.mcqa import lettered
from taskmill.tasks.passage import content, one_line, sentences, words

__all__ = ["CONSTRUCTIONS", "NEEDS", "Cast", "construct"]


@dataclass(frozen=True, slots=True)
class Cast:
    """A row as one task: the slots of the type's wordings (`templates/tasks.yaml`) and the response."""

    task: str
    passage: str
    response: str
    slots: Mapping[str, str] = field(default_factory=dict)
    how: str = ""


YES_NO = ("Yes or No", "Yes", "No")
TRUE_FALSE = ("True or False", "True", "False")
_NLI = (
    ("Yes, No or Maybe", "Yes", "No", "Maybe"),
    ("True, False or Inconclusive", "True", "False", "Inconclusive"),
    ("Entailment, Contradiction or Neutral", "Entailment", "Contradiction", "Neutral"),
    ("Supported, Refuted or Not enough information", "Supported", "Refuted", "Not enough information"),
)
_TE = (YES_NO, TRUE_FALSE, ("Entailed or Not entailed", "Entailed", "Not entailed"))


def judged(row: Row, passage: str, statement: str, meaning: int, how: str) -> Iterator[Cast]:
    """Yield a statement as NLI and as entailment (meaning: 0 follows, 1 is false, 2 is left open)."""
    names, *labels = _NLI[row.draw(f"nli labels {how}", len(_NLI))]
    yield Cast("nli", passage, labels[meaning], {"statement": statement, "labels": names}, how)
    names, *labels = _TE[row.draw(f"te labels {how}", len(_TE))]
    yield Cast("te", passage, labels[min(meaning, 1)], {"statement": statement, "labels": names}, how)


LONGEST_STATEMENT = 15
"""Words; chosen: a generator that learns from longer ones copies the sentence and forgets the change."""

LONGEST_PAIR = 24
"""Words of a sentence that is said again (chosen, for the same reason)."""

# sentences of the passage, said again


def paraphrases(row: Row) -> Iterator[Cast]:
    """A sentence of the passage said in other words; and such a pair, or a false one, to be told apart."""
    for sentence in own_sentences(row, "paraphrase sentence"):
        said = retold(sentence, row)
        if said and len(words(sentence)) <= LONGEST_PAIR:
            yield Cast("paraphrase", row.passage, said, {"sentence": sentence}, "retold")
            yield from same_or_not(row, row.passage, sentence, said, True)
            break
    for sentence in own_sentences(row, "other sentence"):
        said = denied(turned(sentence, row.passage) or reworded(sentence, row) or sentence, row)
        if said and len(words(sentence)) <= LONGEST_PAIR:
            yield from same_or_not(row, row.passage, sentence, said, False)
            break


def same_or_not(row: Row, passage: str, first: str, second: str, same: bool) -> Iterator[Cast]:
    """Yield a pair of sentences with the question whether they mean the same."""
    names, yes, no = (YES_NO, TRUE_FALSE)[row.draw("pair labels", 4) == 0]
    slots = {"first": first, "second": second, "labels": names}
    yield Cast("paraphrase_id", passage, yes if same else no, slots, "pair")


def statements(row: Row) -> Iterator[Cast]:
    """Statements that follow from a sentence of the passage, contradict it, or are left open by it."""
    for sentence in own_sentences(row, "stated"):
        said = retold(shortened(sentence), row)
        if said and len(words(said)) <= LONGEST_STATEMENT:
            yield from judged(row, row.passage, said, 0, "retold statement")
            break
    for sentence in own_sentences(row, "contradicted"):
        said = denied(shortened(sentence), row)
        said = (said and retold(said, row)) or said
        if said and len(words(said)) <= LONGEST_STATEMENT:
            yield from judged(row, row.passage, said, 1, "denied statement")
            break
    yield from left_open(row)


def left_open(row: Row) -> Iterator[Cast]:
    """A sentence from further on in the text, which its first part leaves open."""
    found = sentences(row.passage)
    if len(found) < 5:
        return
    cut = max(3, (2 * len(found)) // 3)
    first = row.passage[: _ends(row.passage, found)[cut - 1]].strip()
    for sentence in row.order([one_line(s) for s in found[cut:]], "open"):
        new = content(sentence) - content(first)
        if stands_alone(sentence) and len(words(sentence)) <= LONGEST_STATEMENT and len(new) > 3:
            yield from judged(row, first, sentence, 2, "later sentence")
            return


def _ends(text: str, found: Sequence[str]) -> list[int]:
    ends, at = [], 0
    for sentence in found:
        at = text.index(sentence, at) + len(sentence)
        ends.append(at)
    return ends


def next_sentence(row: Row) -> Iterator[Cast]:
    """The beginning of the passage, and the sentence that follows it."""
    found = sentences(row.passage)
    if len(found) < 4:
        return
    ends = _ends(row.passage, found)
    for at in range(2 + row.draw("where it breaks off", len(found) - 2), 1, -1):
        sentence = one_line(found[at])
        if 6 <= len(words(sentence)) <= 35 and sentence[-1:] in ".!?":
            yield Cast("sent_comp", row.passage[: ends[at - 1]].strip(), sentence, {}, "next sentence")
            return


# questions with answers

_AUXILIARIES = (
    "happened|appeared|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might"
)
_PAST = "ed|d|ew|ook|ade|ave|ent|old|ot|ame|an|on|id"  # how past tenses end
_WH_SUBJECT = re.compile(
    rf"^(Who|What|Which [\w' -]{{2,30}}?|What [a-z]+) ((?!(?:{_AUXILIARIES})\b)[a-z]+(?:{_PAST})) (.+)\?$"
)
_WH_BE = re.compile(
    r"^(?:Who|What) (is|are|was|were) ((?:the|a|an|one|another|his|her|their|its) [^,?]{4,80})\?$"
)
_CLAUSE = re.compile(
    r"^(?:it|he|she|they|we|i|you|because|so|by|to)\b|\b(?:is|was|were|are|had|could|would|will)\b", re.I
)
_DANGLING = re.compile(r"(?:\b(?:of|for|in|to|by|with|from|at|on|about|as|like|do|called)|ed|ing)$")


def declared(question: str, answer: str) -> str:
    """Return what a question states with its answer ("Who won it?", "Ann": "Ann won it."), or ""."""
    answer = answer.strip().rstrip(".")
    if not 1 <= len(words(answer)) <= 8 or _CLAUSE.search(answer):
        return ""
    found = _WH_SUBJECT.match(question)
    if found:
        return f"{capital(answer)} {found[2]} {found[3]}."
    found = _WH_BE.match(question)
    if found and not _DANGLING.search(found[2]):
        return f"{capital(found[2])} {found[1]} {answer}."
    return ""


def answered(row: Row) -> Iterator[Cast]:
    """What a question and its answer state: true, and false with the answer to another question.

    Columns: question, answer, siblings (answers to other questions of the same text).
    """
    if row.columns.get("question") is None or row.columns.get("answer") is None:
        return
    question, answer = one_line(str(row.columns["question"])), one_line(str(row.columns["answer"]))
    said = declared(capital(question), answer)
    if not said:
        return
    others = _unlike(answer, row)
    if others and row.draw("true", 2):
        yield from judged(row, row.passage, declared(capital(question), others[0]), 1, "another's answer")
    else:
        yield from judged(row, row.passage, said, 0, "answered question")
        yield Cast("qa", row.passage, said, {"question": question}, "answered question")
    sentence = next((one_line(s) for s in sentences(row.passage) if answer in one_line(s)), "")
    close = 4 * len(content(said) & content(sentence)) >= 3 * len(content(said) | content(sentence))
    if stands_alone(sentence) and close:
        yield Cast("paraphrase", row.passage, said, {"sentence": sentence}, "answered question")


def _unlike(answer: str, row: Row) -> list[str]:
    """Return the siblings that are other answers of about the same length, nearest first."""
    own, found = set(words(answer)), []
    for sibling in dict.fromkeys(one_line(str(s)) for s in row.columns.get("siblings") or ()):
        theirs = set(words(sibling))
        if theirs and not theirs <= own and not own <= theirs and 2 * len(own & theirs) < len(own | theirs):
            found.append(sibling)
    return sorted(row.order(found, "unlike"), key=lambda s: abs(len(s) - len(answer)))


def choices(row: Row) -> Iterator[Cast]:
    """A multiple-choice question whose wrong options answer other questions of the same text."""
    if row.columns.get("question") is None or row.columns.get("answer") is None:
        return
    question, answer = (
        one_line(str(row.columns["question"])),
        one_line(str(row.columns["answer"])).rstrip("."),
    )
    wrong = [other.rstrip(".") for other in _unlike(answer, row)[:6]]
    if len(wrong) < 3 or len(words(answer)) > 25:
        return
    options = row.order([answer, *row.order(wrong, "wrong options")[:3]], "options")
    slots = {"question": question, "options": lettered(tuple(options))}
    yield Cast("mcqa", row.passage, answer, slots, "siblings")


_ASKED = re.compile(
    r"^(is|are|was|were|can|could|do|will|would|should|has|have|must|may|might) "
    r"(there|you|they|it|he|she|we|i|all|any|some|people|states|dogs|cats) (.+)$",
    re.I,
)


_VERDICTS = {"true": 0, "yes": 0, "false": 1, "no": 1}


def yes_no_statement(row: Row) -> Iterator[Cast]:
    """A yes-no question as a statement. Columns: question (without mark), title, answer (true or false)."""
    verdict = _VERDICTS.get(str(row.columns.get("answer")).casefold())
    if verdict is None or row.columns.get("question") is None:
        return
    question = one_line(str(row.columns["question"])).rstrip("?").lower()
    title = str(row.columns.get("title") or "").lower()
    found = _ASKED.match(question)
    if found:
        verb, subject, rest = found[1].lower(), found[2].lower(), found[3]
    else:
        verb, _, rest = question.partition(" ")
        article = next((a for a in ("the ", "a ", "an ", "") if rest.startswith(a + title) and title), None)
        if article is None or verb not in (
            "is",
            "are",
            "was",
            "were",
            "can",
            "will",
            "should",
            "has",
            "have",
        ):
            return
        subject, rest = article + title, rest[len(article) + len(title) :].strip()
        if not rest or rest.startswith("'"):
            return
    verb = "" if verb == "do" else f"{verb} "
    said = capital(cased(f"{subject} {verb}{rest}.", row.passage))
    if 4 < len(words(said)) < 20:
        yield from judged(row, row.passage, said, verdict, "yes-no")


# labels of the passage as a whole


def topic_of(text: str) -> str:
    """Return the topic that the passage's words speak for clearly, or "".

    Chosen: three words of a topic at least, and twice as many as of any other.
    """
    tokens = words(text)
    own = {name: frozenset(topic["words"].split()) for name, topic in rules()["topics"].items()}
    counts = sorted(((sum(t in listed for t in tokens), name) for name, listed in own.items()), reverse=True)
    return counts[0][1] if counts[0][0] >= 3 and counts[0][0] >= 2 * counts[1][0] else ""


def topics(row: Row) -> Iterator[Cast]:
    """The topic of the passage among three to five, each under one of its names."""
    known = rules()["topics"]
    topic = str(row.columns.get("topic") or "") or topic_of(row.passage)
    if topic not in known:
        return
    others = row.order(sorted(set(known) - {topic, *known[topic]["near"]}), "other topics")
    shown = {}
    for name in (topic, *others[: 2 + row.draw("how many", 3)]):
        names = known[name]["names"]
        shown[name] = names[row.draw(f"name {name}", len(names))]
    labels = row.order(list(shown.values()), "labels")
    listed = f"{', '.join(labels[:-1])} or {labels[-1]}"
    yield Cast("topic_class", row.passage, shown[topic], {"labels": listed}, "words of the topic")


def neutral(row: Row) -> Iterator[Cast]:
    """A passage that reports facts takes no side."""
    names = ("positive, negative or neutral", "neutral, positive or negative")[row.draw("tone labels", 2)]
    yield Cast("sentiment", row.passage, "neutral", {"labels": names}, "factual")


def senses(row: Row) -> Iterator[Cast]:
    """Pairs of uses of a word. Columns: word, sense (a definition), fits, siblings (uses of it and others).

    Two uses that fit one definition have the same sense; a use that does not fit it has another. A use is
    one sentence; uses of other words stand around it, so that it has to be found in a passage.
    """
    said, word = row.columns["context"], row.columns["word"]
    siblings = row.columns.get("siblings") or ()
    uses = [u for u in siblings if u["context"] != said and u["word"] == word]
    if not row.columns["fits"]:
        return
    others = row.order(sorted({u["context"] for u in siblings if u["word"] != word}), "around")
    around = row.order([said, *others[: row.draw("how many around", 7)]], "place")
    passage = " ".join(_ended(capital(text)) for text in around)
    for use in row.order([str(i) for i in range(len(uses))], "uses"):
        other = uses[int(use)]
        same = other["fits"] and other["sense"] == row.columns["sense"]
        differs = not other["fits"] and other["sense"] == row.columns["sense"]
        if same or differs:
            names, yes, no = (YES_NO, TRUE_FALSE)[row.draw("sense labels", 4) == 0]
            first, second = _ended(capital(one_line(said))), _ended(capital(one_line(other["context"])))
            slots = {"word": str(row.columns["word"]), "first": first, "second": second, "labels": names}
            yield Cast("wsd", passage, yes if same else no, slots, "uses of a word")
            return


def _ended(text: str) -> str:
    return text if text.rstrip()[-1:] in ".!?" else f"{text.rstrip()}."


CONSTRUCTIONS: dict[str, Callable[[Row], Iterator[Cast]]] = {
    "answered": answered,
    "choices": choices,
    "left_open": left_open,
    "neutral": neutral,
    "next_sentence": next_sentence,
    "paraphrases": paraphrases,
    "senses": senses,
    "statements": statements,
    "topics": topics,
    "yes_no_statement": yes_no_statement,
}
"""Name in a declaration → the construction."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "answered": ("question", "answer", "siblings"),
    "choices": ("question", "answer", "siblings"),
    "senses": ("word", "sense", "fits", "context", "siblings"),
    "yes_no_statement": ("question", "answer"),
}
"""Columns a construction reads besides the passage: those are about a question (or the use of a word), of
which a passage may have many."""


def construct(name: str, row: Row) -> Iterator[Cast]:
    """Yield the casts of a named construction."""
    yield from CONSTRUCTIONS[name](row)
