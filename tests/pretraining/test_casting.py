"""Casting: examples of annotated datasets become texts with lists of pairs, in four formats."""

from hypothesis import given
from hypothesis import strategies as st

from taskmill.record import Example, Reason, Source
from taskmill.synthesize.casting import Annotated, capped, cast, from_row, to_row
from taskmill.synthesize.pair_format import Pair, parse, render


def example(name, context, question, answer, options=(), rationale="", dataset="d", task="qa"):
    index = options.index(answer) if options else None
    asked, source = "{{context}}\n\nQuestion: " + question, Source(dataset=dataset)
    return Example(name, task, context, asked, answer, options, index, rationale, source)


EXAMPLES = [
    example("1", "A text.", "Who is it?", "Ann"),
    example("2", "A text.", "Where is it?", "here", ("here", "there", "away"), task="mcqa"),
    example("3", "A text.", "Why is it?", "so", rationale="Because."),
    example("4", "A text.", "When is it?", "now", ("now", "then", "never"), "It says so.", task="mcqa"),
    example("5", "A text.", "who is it?", "Ben"),
    example("6", "A text.", "Who is it?", "Ann", dataset="other"),
    example("7", "", "Who is it?", "Ann"),
    example("8", "A text.", "Sum it up", "A text."),
]


def test_examples_become_records_of_four_formats():
    records, lost = cast(EXAMPLES)
    found = {(r.dataset, r.format): r.pairs for r in records}
    options = "Where is it?\nOptions:\n- here\n- there\n- away"
    assert found["d", "free"] == (Pair("Who is it?", "Ann"),)
    assert found["d", "options"] == (Pair(options, "here"),)
    assert found["d", "free-cot"] == (
        Pair("Why is it?\nLet's think step by step.", "Because.\nTherefore, the answer is so"),
    )
    assert set(found) == {("d", f) for f in ("free", "options", "free-cot", "options-cot")} | {
        ("other", "free")
    }
    assert sorted((d.row.id, d.reason) for d in lost) == [
        ("5", Reason.DUPLICATE), ("7", Reason.NOT_APPLICABLE), ("8", Reason.NOT_A_QUESTION),
    ]  # fmt: skip
    assert len(lost) + sum(len(r.pairs) for r in records) == len(EXAMPLES)


@given(st.permutations(EXAMPLES))
def test_the_order_of_the_examples_changes_nothing(order):
    assert cast(order) == cast(EXAMPLES)


def test_a_record_goes_through_its_row_and_its_wire():
    for record in cast(EXAMPLES)[0]:
        assert from_row(to_row(record), "file") == record
        (shown,) = parse(render([type(parse("<s></s>")[0])(record.context, record.pairs)]))
        assert (shown.context, shown.pairs) == (record.context, record.pairs)


def test_the_cap_prefers_texts_of_most_pairs():
    records = [Annotated("d", f"c{i}", (Pair("q", "a"),) * (i % 5 + 1)) for i in range(50)]
    few = capped([*records, Annotated("e", "c", (Pair("q", "a"),))], 12)
    assert sum(r.dataset == "d" for r in few) == 12
    assert {len(r.pairs) for r in few if r.dataset == "d"} == {5, 4}
    assert sum(len(r.pairs) == 5 for r in few) == 10
    assert sum(r.dataset == "e" for r in few) == 1


def test_rows_without_text_or_pairs_are_none():
    assert from_row({"context": "", "QA_list": [{"Q": "q", "A": "a"}]}, "f") is None
    assert from_row({"context": "c", "QA_list": [{"Q": "q", "A": ""}, "odd"]}, "f") is None
    assert from_row({"context": "c"}, "f") is None
    assert from_row({"context": "c", "pairs": [{"question": "q", "answer": "a"}]}, "f").dataset == "f"
