"""The rule by which runs accept examples: against brute force, real benchmarks, and our own wordings."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import chain
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.curate import screen as module
from taskmill.curate.benchmark_index import Item, index_of, shipped
from taskmill.curate.screen import Screen
from taskmill.errors import InputError, UsageError
from taskmill.recipes.curate import CurateConfig, curate
from taskmill.recipes.evaluation_sets import HeldOut, build_index
from taskmill.record import EXAMPLE_SCHEMA, VERDICT_SCHEMA, Example, to_table
from taskmill.render import PLACEHOLDER

QUESTION = (
    "A farmer counts nineteen grey geese on Monday, gives away a third of the goslings and buys two dozen "
    "hens at the market; how many birds with feathers does she feed on Tuesday evening?"
)
ANSWER = "She feeds the geese that are left and all of the new hens, which makes forty birds."
ARTICLE = (
    "We hold that the river belongs to no town, and that every boat may pass it freely by day and night."
)


def example(instruction="", response="", context="", options=()):
    return Example("0", "exqa", context, instruction, response, tuple(options))


def screen(*items):
    return Screen(index_of("s", [Item(f"s/test/{i}", parts) for i, parts in enumerate(items)]))


# Brute force


def runs(words, part):
    """Return (at, place, length) of every longest run of eight words or more."""
    found = []
    for at in range(len(words)):
        for place in range(len(part)):
            if words[at] != part[place] or (at and place and words[at - 1] == part[place - 1]):
                continue
            length = 0
            while (
                at + length < len(words)
                and place + length < len(part)
                and words[at + length] == part[place + length]
            ):
                length += 1
            if length >= 8:
                found.append((at, place, length))
    return found


def holds(words, part):
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def expected(own, passage, items):
    """Return {item: share} of what an example holds."""
    found = {}
    for number, (kinds, parts) in enumerate(items):
        answers = [p for k, p in zip(kinds, parts, strict=True) if k == "answer"]
        for kind, part in zip(kinds, parts, strict=True):
            if len(part) < (8 if kind == "question" else 13):
                continue
            quoted = {p + i for _, p, n in runs(passage, part) for i in range(n - 4)}
            good = [
                n / len(part)
                for _, p, n in runs(own, part)
                if len(set(range(p, p + n - 4)) - quoted) >= min(13, len(part)) - 4
                and (len(part) >= 13 or not answers or any(holds(own, a) for a in answers))
            ]
            if len(part) >= 13 and kind != "passage" and holds(passage, part):
                good.append(1.0)
            if good:
                found[number] = max(found.get(number, 0.0), *good)
    return found


WORD = st.sampled_from([f"w{i}" for i in range(6)])


@st.composite
def cases(draw):
    """Items and texts of few different words, into which pieces of the items are put."""
    kind = st.sampled_from(["question", "answer", "passage"])
    part = st.lists(WORD, min_size=1, max_size=20)
    items = draw(st.lists(st.lists(st.tuples(kind, part), min_size=1, max_size=3), min_size=1, max_size=3))
    items.append([("question", [f"z{i}" for i in range(13)])])  # one that can be found at all
    pieces = []
    for _, words in chain.from_iterable(items):
        a = draw(st.integers(0, len(words)))
        pieces += [words, words[:a], words[a:]]
    noise = st.lists(WORD, max_size=6)
    text = st.lists(st.one_of(noise, st.sampled_from(pieces), st.sampled_from(pieces)), max_size=4)
    own, passage = (list(chain.from_iterable(draw(text))) for _ in range(2))
    return [tuple(zip(*item, strict=True)) for item in items], own, passage


@settings(max_examples=100)
@given(cases())
def test_what_is_found_equals_brute_force(case):
    items, own, passage = case
    parts = [[(k, " ".join(p)) for k, p in zip(*item, strict=True)] for item in items]
    distinct = {json.dumps(own): i for i, own in reversed(list(enumerate(parts)))}
    row = example(" ".join(own), context=" ".join(passage))
    found = screen(*parts).match(row)
    with patch.object(module, "MANY", 1):
        assert screen(*parts).matches([row, example("few"), row]) == [found, None, found]
    wanted = {i: s for i, s in expected(own, passage, items).items() if i in distinct.values()}
    if not wanted:
        assert found is None
        return
    best = min(wanted, key=lambda i: (-wanted[i], i))
    assert found.item == f"s/test/{best}"
    assert found.score == pytest.approx(wanted[best])


# What is compared


def test_what_is_written_and_the_passage_are_looked_at_in_different_ways():
    own = screen([("question", QUESTION), ("answer", ANSWER)], [("question", f"{ARTICLE} What may pass?")])
    half = " ".join(QUESTION.split()[:14])
    assert own.match(example(f"Now: {half}?")).item == "s/test/0"
    assert own.match(example("Now:", f"So {ANSWER.upper()}")).column == "response"
    assert own.match(example("Which?", "b", options=["a", ANSWER])).column == "options"
    assert own.match(example("What is counted?", "geese", f"He said: {half}.")) is None
    assert own.match(example("What is counted?", "geese", f"He said: {QUESTION}")).detail.startswith(
        "context 9-"
    )
    # A passage that a benchmark quotes as well, and a response that quotes the passage.
    assert own.match(example("What does it hold?", ARTICLE, f"In 1790: {ARTICLE}")) is None
    assert own.match(example("What does it hold?", ARTICLE)).item == "s/test/1"


def test_passages_of_items_may_be_passages():
    own = screen([("question", QUESTION), ("passage", ARTICLE)])
    assert own.match(example("What may pass?", "boats", ARTICLE)) is None
    assert own.match(example(ARTICLE, "boats")).item == "s/test/0"


def test_a_short_question_counts_with_its_answer_only():
    short = "Which of the following is a correct statement?"
    own = screen(
        [("question", short), ("answer", "Geese are birds")],
        [("question", "How do I learn to sing well at home?")],
    )
    assert own.match(example(f"{short} A) Hens are fish B) Geese are grey", "B")) is None
    assert own.match(example(short, "Geese are birds.")).score == 1.0
    assert own.match(example(short, "x", options=["Hens are fish", "Geese are birds"])).item == "s/test/0"
    assert own.match(example("How do I learn to sing well at home?", "Sing.")).item == "s/test/1"
    assert own.match(example("How do I learn to sing well?", "Sing.")) is None


def test_places_are_characters_of_the_stored_columns():
    own = screen([("question", QUESTION)])
    text = f"{PLACEHOLDER}\n\nİ 北京: {QUESTION} Why?"
    found = own.match(example(text, "x", "Geese."))
    assert text[found.start : found.end] == QUESTION[:-1]
    assert found.detail == f"instruction {found.start}-{found.end}: in s/test/0"


def test_long_texts_of_one_word_are_no_trap():
    own = screen([("question", "no " * 300)], [("question", QUESTION)])
    assert own.match(example("no " * 6000)).item == "s/test/0"
    assert own.match(example("yes " * 33_000)) is None


def test_an_index_in_which_nothing_is_long_enough_is_refused():
    with pytest.raises(InputError, match="nothing would be found"):
        screen(
            [("question", "Which of these is it?"), ("answer", "The first of these eight or nine words here")]
        )


def test_verdicts_are_added_to_those_of_the_checks():
    rows = [
        Example("a", "qa", "", QUESTION, "x"),
        Example("b", "qa", "", QUESTION, "y"),
        example("Why?", "z"),
    ]
    table = to_table(rows, EXAMPLE_SCHEMA)
    given = [{"filter": "check", "reason": r, "detail": r, "score": None} for r in (None, "trivial", None)]
    before = pa.Table.from_pylist(given, schema=VERDICT_SCHEMA)
    after = screen([("question", QUESTION)]).judge(table, before)
    assert after.schema == VERDICT_SCHEMA
    detail = f"instruction 0-{len(QUESTION) - 1}: in s/test/0"
    found = {"filter": "decontaminate", "reason": "contaminated", "detail": detail, "score": 1.0}
    assert after.to_pylist() == [found, *given[1:]]
    assert screen([("question", QUESTION)]).judge(table.slice(1, 1), before.slice(1, 1)) == before.slice(1, 1)


# The shipped indexes


@pytest.fixture(scope="module")
def public():
    return HeldOut(("shipped",))


def test_the_wordings_of_this_package_are_no_items(public):
    words = yaml.safe_load((files("taskmill.templates") / "tasks.yaml").read_text("utf-8"))
    texts = json.dumps(words, ensure_ascii=False).replace("\\n", "\n").splitlines()
    slots = re.compile(r"\{[{%].*?[%}]\}")
    assert len(texts) > 100
    assert [t for t in texts if public.match(example(slots.sub(" ", t), "yes"))] == []


@pytest.mark.parametrize("file", ["gsm8k_test", "strategyqa_dev", "mmlu_stem"])
def test_questions_of_benchmarks_are_found_with_their_names(public, shared_data, file):
    rows = pq.read_table(shared_data / "benchmarks" / f"{file}.parquet").to_pylist()[::7]
    suite = file.split("_")[0]
    looked = 0
    for row in rows:
        if len(re.findall(r"\w+", row["question"])) < 14:
            continue
        looked += 1
        found = public.match(example(f"Tell me. {row['question']} Thanks."))
        assert found.item.startswith(f"{suite}/")
        assert found.score > 0.9
        assert public.match(example("What is asked?", "that", f"Tell me. {row['question']}")) is not None
    assert looked > 3


def test_generic_questions_and_quotations_are_none(public):
    for question in (
        "Which of the following is a correct statement?",
        "Which one of the following statements is true?",
        "Which of the following statements is the odd one out?",
        "What is the main idea of the passage, and why does the author say so?",
    ):
        assert (
            public.match(example(question, "The second one.", options=["The first one.", "The second one."]))
            is None
        )


def test_a_document_that_a_benchmark_quotes_may_be_used(public, shared_data):
    questions = pq.read_table(shared_data / "benchmarks" / "mmlu_redux.parquet")["question"].to_pylist()
    quoting = [q for q in questions if len(q.split()) > 150][:20]
    assert len(quoting) == 20
    for question in quoting:
        document = " ".join(question.split()[20:100])
        assert public.match(example("What does it say?", document, f"Once: {document} And so on.")) is None
        assert public.match(example("What does it say?", document)).item.startswith("mmlu/")


def test_a_run_without_items_loads_no_compiler(texts, tmp_path):
    code = (
        "import sys\n"
        "from taskmill.backends import ModelConfig\n"
        "from taskmill.recipes import SynthConfig, synth\n"
        f"config = SynthConfig(({str(texts)!r},), ('exqa',), 3, model=ModelConfig(ref='echo:'))\n"
        f"manifest = synth(config, {str(tmp_path / 'run')!r})\n"
        "print(sorted(manifest['against']), 'numba' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"{sorted(shipped())} False"


# What examples are held against


def test_files_folders_indexes_and_names_can_be_mixed(tmp_path):
    folder = tmp_path / "held"
    folder.mkdir()
    (folder / "one.jsonl").write_text(json.dumps({"question": QUESTION}))
    pq.write_table(pa.table({"text": [ARTICLE]}), folder / "two.parquet")
    assert HeldOut((str(folder),)).match(example(QUESTION)).item == "held/one/0"
    assert HeldOut((str(folder),)).match(example(ARTICLE)).item == "held/two/0"
    build_index([str(folder / "one.jsonl")], tmp_path / "own.index")
    both = HeldOut(("shipped", str(tmp_path / "own.index")))
    assert both.match(example(QUESTION)).item == "own/rows/0"
    assert set(both.key) == {*shipped(), str(tmp_path / "own.index")}
    assert HeldOut(("none",)).match(example(QUESTION)) is None
    before = HeldOut((str(folder),)).key
    (folder / "one.jsonl").write_text(json.dumps({"question": ARTICLE * 2}))
    assert HeldOut((str(folder),)).key != before


def test_curate_drops_items_and_names_them(tmp_path):
    rows, held = tmp_path / "rows.jsonl", tmp_path / "held.jsonl"
    data = [("Say it.", "That much is said."), (f"Now: {QUESTION}", "Forty, as far as one can see.")]
    rows.write_text("\n".join(json.dumps({"instruction": i, "response": r}) for i, r in data))
    held.write_text(json.dumps({"question": QUESTION, "answer": ANSWER}))
    config = CurateConfig(sources=(str(rows),), against=(str(held), "shipped"))
    report = curate(config, tmp_path / "out")
    assert report["funnel"] == {"in": 2, "kept": 1, "dropped": {"contaminated": 1}}
    (lost,) = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    where = f"instruction 5-{5 + len(QUESTION) - 1}: in held/rows/0"
    assert (lost["filter"], lost["score"]) == ("contaminated", 1.0)
    assert lost["detail"] == f"contaminated 1, most 0: {where}"
    # Decided again by the stored scores: with the same evidence, and nothing is looked for.
    again = CurateConfig(sources=(str(tmp_path / "out"),), set={"contaminated": ("1",)})
    assert curate(again, tmp_path / "wide")["funnel"]["kept"] == 2
    strict = CurateConfig(sources=(str(tmp_path / "wide"),))
    assert curate(strict, tmp_path / "strict")["funnel"]["dropped"] == {"contaminated": 1}
    assert pq.read_table(tmp_path / "strict" / "dropped.parquet")["detail"].to_pylist() == [lost["detail"]]
    with pytest.raises(UsageError, match="--against"):
        curate(replace(strict, against=("none",)), tmp_path / "no")
    # By default against the shipped ones; not at all if one says so.
    for names, listed in ((("shipped",), True), (("none",), False)):
        report = curate(CurateConfig(sources=(str(rows),), against=names), tmp_path / names[0])
        assert report["funnel"]["kept"] == 2
        assert ("contaminated" in report["filters"]) == listed


def test_what_cannot_be_held_against_is_refused_at_once(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"n": 1}')
    for names, error, words in (
        (("none", "mmlu"), UsageError, "stands alone"),
        (("mmlo",), InputError, "Did you mean 'mmlu'"),
        ((str(empty),), InputError, "empty.jsonl holds no text"),
    ):
        with pytest.raises(error, match=words):
            HeldOut(names)
