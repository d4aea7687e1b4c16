"""The published synthesizer's format: nothing is lost on the way out and back, and no drop is silent."""

from hypothesis import given
from hypothesis import strategies as st

from taskmill.record import Reason
from taskmill.synthesize.pair_format import (
    TAGS,
    Pair,
    Shown,
    parse,
    prompt,
    read_reply,
    render,
    render_pairs,
    split_options,
    split_reasoning,
    with_options,
    with_reasoning,
)

pieces = st.one_of(
    st.text(max_size=8),
    st.sampled_from([*TAGS, "\u2060", "<", ">", " ", "\n\n", "\r\n", "{{context}}", "{% x %}"]),
)
texts = st.lists(pieces, max_size=6).map("".join)
pairs = st.builds(Pair, texts, texts)
shown = st.builds(Shown, texts, st.lists(pairs, max_size=3).map(tuple))


def test_the_form_is_the_published_one():
    """Oracle: `cook_read` and `cook_compre` of microsoft/LMOps, instruction_pretrain/utils/read_compre.py."""
    example = Shown("A text.", (Pair("Who?", "Ann"), Pair("When?", "today")))
    assert render([example]) == (
        "<s> <CON> A text. </CON>\n\n<QUE> Who? <ANS> Ann </END>\n\n<QUE> When? <ANS> today </END></s>"
    )
    assert (
        prompt("New.", [Shown("", (Pair("Q", "A"),))])
        == "<s><QUE> Q <ANS> A </END></s><s> <CON> New. </CON>\n\n"
    )
    assert prompt("New.", begin=False) == " <CON> New. </CON>\n\n"


@given(st.lists(shown, max_size=3))
def test_parse_takes_back_what_was_rendered(examples):
    assert parse(render(examples)) == examples


@given(st.lists(shown, max_size=2), texts)
def test_a_prompt_holds_its_text_once_and_no_tag_of_the_user(history, context):
    text = prompt(context, history)
    assert text.startswith(render(history))
    assert text.count("<s>") == len(history) + 1
    assert text.count("</s>") == len(history)


@given(st.lists(pairs, max_size=4), texts)
def test_whatever_follows_whole_pairs_they_are_salvaged(whole, tail):
    """Every piece is a pair or a drop with a reason."""
    wanted = [p for p in whole if p.question.strip() and p.answer.strip()]
    seen = list({p.question.strip().lower(): p for p in reversed(wanted)}.values())[::-1]
    found, lost = read_reply(f"{render_pairs(whole)}\n\n<QUE> {tail.replace('<', '')}")
    assert {p.question.lower() for p in found} == {p.question.strip().lower() for p in seen}
    assert len(found) + len(lost) == len(whole) + 1
    assert lost[-1].reason == Reason.TRUNCATED


def test_each_malformed_piece_has_its_reason():
    reply = (
        "<QUE> Who? <ANS> Ann </END> no tags </END> <QUE> Two? <ANS> a <ANS> b </END>"
        "<QUE> Empty? <ANS>  </END>"
        "<QUE> who? <ANS> Ben </END><QUE> Nested <QUE> again? <ANS> c </END><QUE> cut <ANS> of"
    )
    found, lost = read_reply(reply)
    assert found == [Pair("Who?", "Ann")]
    wanted = [Reason.MALFORMED, Reason.MALFORMED, Reason.EMPTY_REPLY, Reason.DUPLICATE, Reason.MALFORMED]
    assert [r.reason for r in lost] == [*wanted, Reason.TRUNCATED]


def test_a_reply_that_goes_on_to_another_text_ends_there():
    found, lost = read_reply("<QUE> A? <ANS> b </END></s><s> <CON> made up </CON> <QUE> C? <ANS> d </END>")
    assert found == [Pair("A?", "b")]
    assert lost == []
    assert read_reply("<QUE> A? <ANS> b </END> <CON> made up </CON><QUE> C? <ANS> d </END>")[0] == found
    assert read_reply("") == ([], [])


lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=12)


@given(lines, st.lists(lines, min_size=1, max_size=30))
def test_options_are_read_back(question, options):
    assert split_options(with_options(question, options)) == (question, tuple(options))
    assert split_options(question) == (question, ())


@given(texts, texts, lines)
def test_reasoning_is_read_back(question, rationale, answer):
    assert split_reasoning(with_reasoning(question, rationale, answer)) == (question, rationale, answer)
    assert split_reasoning(Pair(question + "?", answer)) == (question + "?", "", answer)
