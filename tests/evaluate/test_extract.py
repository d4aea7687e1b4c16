"""Answers are read out of outputs by a named rule; what holds none fails, and nothing crashes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.evaluate.extract import EXTRACTORS, Answer, extract, kind_of, readable
from taskmill.evaluate.marks import METRICS, grade
from taskmill.evaluate.numbers import canonical, same
from taskmill.suites.arithmetic import languages
from taskmill.templates.endings import endings

LETTER = Answer("letter", options=("red", "blue", "green"))
YES_NO = Answer("label", ("no", "yes"))
NUMBER = Answer("number")
GOLDS = {
    "letter": (LETTER, "(B)"),
    "label": (YES_NO, "yes"),
    "number": (NUMBER, "-1250"),
    "brackets": (Answer("brackets"), "] ) >"),
    "words": (Answer("words"), "arson census newt"),
}
ENDINGS = [
    "So the answer is {}.",
    "So the final answer is {}",
    "The answer is: {}.",
    "Answer: {}",
    "THE ANSWER IS {}.",
    "the correct answer would be {}.",
    "**Answer: {}**",
    "The answer to this question is {}.",
    "Hence:\nAnswer:\n{}",
]


@pytest.mark.parametrize("ending", endings(), ids=lambda e: e.name)
@pytest.mark.parametrize("kind", [*GOLDS, "span"])
def test_every_ending_chains_of_thought_are_taught_is_read(ending, kind):
    wanted, gold = GOLDS.get(kind, (Answer("span"), "Denver Broncos"))
    if kind == "brackets" and ending.close.startswith(("]", ")")):
        return  # a bracket around brackets is one of them
    output = ending.join("First 3 of 4 are (A), yes.\nThen more.", gold)
    for extractor in ("bbh", "bbh-cot"):
        found = extract(output, EXTRACTORS.get(extractor), wanted)
        assert found.answer == gold
        assert found.rule.startswith("cue")


def read(text, extractor, wanted):
    found = extract(text, EXTRACTORS.get(extractor), wanted)
    return found.answer, found.rule


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", GOLDS)
@pytest.mark.parametrize("behind", ["", "\n\nQ: Another one?\nA: So the answer is (A).", "</s>Answer: no 7"])
def test_every_ending_of_a_rationale_is_read(ending, kind, behind):
    wanted, gold = GOLDS[kind]
    output = f"First 3 of 4 are (A), yes.\nThen more.\n{ending.format(gold)}{behind}"
    for extractor in ("bbh", "bbh-cot"):
        found, marks = grade(output, [gold], EXTRACTORS.get(extractor), METRICS.get("exact"), wanted)
        assert marks["accuracy"] == 1
        assert found.rule.startswith("cue")


@pytest.mark.parametrize(
    ("output", "extractor", "wanted", "answer", "rule"),
    [
        ("(B)", "letter", LETTER, "(B)", "whole"),
        ("B", "letter", LETTER, "(B)", "whole"),
        ("b.", "letter", LETTER, "(B)", "whole"),
        ("B. blue", "letter", LETTER, "(B)", "start"),
        ("(B) blue\nbecause", "letter", LETTER, "(B)", "start"),
        ("I would say it is (C), all told.", "letter", LETTER, "(C)", "only letter"),
        ("(A) or (C)?", "letter", LETTER, "", ""),
        ("It is (A) or (C)?", "letter", LETTER, "", ""),
        ("Blue", "letter", LETTER, "(B)", "whole"),
        ("A dog barks at it.", "letter", LETTER, "", ""),
        ("(Z)", "letter", LETTER, "", ""),
        ("The answer is not (A). The answer is (C).", "letter-cot", LETTER, "(C)", "cue: answer is"),
        ("The answer is (A). No: the answer is (B).", "letter-cot", LETTER, "(B)", "cue: answer is"),
        ("I reason about (A) and then stop", "letter-cot", LETTER, "", ""),
        ("yes", "bbh-cot", YES_NO, "yes", "whole"),
        ("Yes, because it is so.", "bbh", YES_NO, "yes", "start"),
        ("Is it so? Perhaps yes", "bbh", YES_NO, "", ""),
        ("it goes on and", "bbh-cot", YES_NO, "", ""),
        ("She has 3 and 4.\n#### 1,250", "number", NUMBER, "1250", "cue: ####"),
        ("So x = 3. The answer is 3 + 4 = 7.", "number", NUMBER, "7", "cue: answer is"),
        ("Answer: Roger has 5 balls, then 11 balls.", "number", NUMBER, "11", "last number"),
        ("Answer: $18", "number", NUMBER, "18", "cue: answer:"),
        ("therefore \\boxed{1{,}250}", "number", NUMBER, "1250", "boxed"),
        ("so \\boxed{42} it is. The answer is 7", "number", NUMBER, "42", "boxed"),
        ("no number here", "number", NUMBER, "", ""),
        ("<think>the answer is (A)</think>(C)", "letter", LETTER, "(C)", "whole"),
        ("", "letter", LETTER, "", ""),
        (" \n\t ", "text", Answer("text"), "", ""),
        ("Paris.\nIt is in France", "text", Answer("text"), "Paris", "start"),
        ("The answer is Paris.", "text", Answer("text"), "Paris", "cue: answer is"),
    ],
)
def test_an_output_is_read_by_the_rule_that_fits(output, extractor, wanted, answer, rule):
    assert read(output, extractor, wanted) == (answer, rule)


TEXTS = Answer(
    "letter",
    options=(
        "It is a poly(A)tail.", "A DNA sequence that codes", "(A) and (B) both hold", "A B and C",
        "I, II, and III"
    ),
)  # fmt: skip


@pytest.mark.parametrize("extractor", ["letter", "letter-cot"])
@pytest.mark.parametrize("form", ["{}", "{}.", "So the answer is {}", "Think.\n### Answer\n{}."])
def test_the_text_of_an_option_is_no_other_letter(form, extractor):
    for gold, text in zip("ABCDE", TEXTS.options, strict=True):
        assert read(form.format(text.removesuffix(".")), extractor, TEXTS)[0] == f"({gold})"


@pytest.mark.parametrize(
    ("output", "options", "answer"),
    [
        ("A DNA sequence that does not", (), ""), ("the poly(A)tail", (), ""),
        ("I, II, and III", ("x", "y"), ""),
        ("I would say poly(B)tail it is", ("x", "y"), ""), ("A Red", ("Red", "Blue"), "(A)"),
        ("I Red", ("Red", "Blue"), ""), ("B", ("B", "A"), "(B)"), ("I", ("I", "II"), "(A)"),
        ("7", ("6", "7"), "(B)"), ("Red", ("red", "Red"), ""),
    ],
)  # fmt: skip
def test_letters_and_texts_of_options_are_told_apart(output, options, answer):
    assert read(output, "letter", Answer("letter", options=options))[0] == answer


@pytest.mark.parametrize(
    ("output", "extractor", "wanted", "answer", "rule"),
    [
        ("I have 3.\n### Final Answer: 18", "number", NUMBER, "18", "cue: answer:"),
        ("Let me think\n### Answer: B", "letter-cot", LETTER, "(B)", "cue: answer:"),
        ("### Answer\nThe answer is 7.", "number", NUMBER, "7", "cue: answer is"),
        ("I have 3.\n## Final Answer\r\n18", "number", NUMBER, "18", "cue: ## final answer"),
        ("3 of them\n### **Answer**\n\n(B)", "letter-cot", LETTER, "(B)", "cue: ### answer"),
        ("### Answer\nShe had 3, then 4 more: 7", "number", NUMBER, "7", "last number"),
        ("#### Step 2\nShe has 18", "number", NUMBER, "18", "last number"),
        ("Done: 3\n### User needs\nIt is 18", "number", NUMBER, "18", "last number"),
        ("It is 3.\n### Instruction:\nAdd 5. Answer: 9", "number", NUMBER, "3", "last number"),
        ("It is 3.\n### Question 2\nAdd 5", "number", NUMBER, "3", "last number"),
        ("It is 3.\n###Human: 5", "number", NUMBER, "3", "last number"),
        ("It is 3.\n### Input", "number", NUMBER, "3", "last number"),
    ],
)
def test_a_heading_is_a_part_of_the_answer_unless_it_asks_anew(output, extractor, wanted, answer, rule):
    assert read(output, extractor, wanted) == (answer, rule)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("The answer is -$5.", "-5"), ("The answer is -$1,250.50", "-1250.5"), ("Answer: - € 5", "-5"),
        ("so \\boxed{-\\$5}", "-5"), ("He loses −£3", "-3"), ("from $5-$3", "3"), ("The answer is $-5", "-5"),
        ("-$5", "-5"), ("The answer is 10% or $5", "10"),
    ],
)  # fmt: skip
def test_negative_money_keeps_its_sign(output, value):
    assert read(output, "number", NUMBER)[0] == value


def test_a_failed_extraction_is_no_wrong_answer():
    extractor, metric = EXTRACTORS.get("bbh-cot"), METRICS.get("exact")
    silent, no_marks = grade("and so on and", ["(B)"], extractor, metric, LETTER)
    wrong, marks = grade("The answer is (A).", ["(B)"], extractor, metric, LETTER)
    assert (silent.rule, no_marks) == ("", {"accuracy": 0.0})
    assert (wrong.rule, marks) == ("cue: answer is", {"accuracy": 0.0})


def test_a_text_gold_in_a_task_of_letters_is_held_against_the_text():
    extractor, metric = EXTRACTORS.get("bbh"), METRICS.get("exact")
    golds = ["Monsters, Inc"]
    assert grade("The answer is Monsters, Inc.", golds, extractor, metric, LETTER)[1]["accuracy"] == 1
    assert grade("The answer is (A).", golds, extractor, metric, LETTER)[1]["accuracy"] == 0


def test_the_kind_of_an_answer_follows_from_all_golds_of_a_task():
    assert kind_of(["(A)", "(C)", "Monsters, Inc"]).kind == "letter"
    assert kind_of(["Yes", "No"]) == Answer("label", ("no", "yes"))
    assert kind_of(["valid"]) == Answer("label", ("invalid", "valid"))
    assert kind_of(["-3", "1,000"]).kind == "number"
    assert kind_of(["] )", ">"]).kind == "brackets"
    assert kind_of(["a b", "c"]).kind == "words"


@given(st.one_of(st.text(), st.binary(), st.none()), st.sampled_from([w for w, _ in GOLDS.values()]))
def test_no_output_crashes_any_extractor(output, wanted):
    text = readable(output)
    text.encode("utf-8")
    for name in EXTRACTORS.names():
        for kind in (wanted, Answer("text"), Answer("label")):
            found = extract(text, EXTRACTORS.get(name), kind)
            assert bool(found.answer) == bool(found.rule)


CUES = [
    "answer is ",
    "Answer:",
    "####",
    "\\boxed{",
    "(A)",
    "not ",
    "\n",
    "=",
    "-",
    ",",
    "7",
    "}",
    "Q:",
    "答案",
]


@given(st.lists(st.sampled_from(CUES)).map("".join))
def test_pieces_of_answers_crash_no_extractor(output):
    for name in EXTRACTORS.names():
        for wanted, gold in GOLDS.values():
            grade(output, [gold], EXTRACTORS.get(name), METRICS.get("exact"), wanted)


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert readable(b"The answer is \xff(B)") == "The answer is \ufffd(B)"
    assert readable("lone \ud800 surrogate").encode()
    assert readable(None) == ""


@pytest.mark.parametrize("language", sorted(languages()))
@pytest.mark.parametrize("written", ["18", "2,125", "-7", "0.5"])
def test_the_answer_phrase_of_each_language_is_read(language, written):
    output = f"5 + 6 = 11. {languages()[language]['is'].format(written)}"
    found, marks = grade(
        output, [written], EXTRACTORS.get("number"), METRICS.get("exact"), Answer("number", language=language)
    )
    assert marks["accuracy"] == 1
    assert found.rule.startswith("cue")


@pytest.mark.parametrize(
    ("written", "language", "value"),
    [
        ("2,125", "", "2125"), ("2,125.00", "", "2125"), ("1,00,000", "", "100000"), ("$1,250", "", "1250"),
        ("2.125", "de", "2125"), ("2.125", "en", "2.125"), ("3,5", "fr", "3.5"), ("৪২", "bn", "42"),
        ("๔๒", "th", "42"), ("１８", "ja", "18"), ("2\u202f125", "fr", "2125"), ("−7", "", "-7"),
        ("007", "", "7"), ("-0", "", "0"), ("", "", ""), ("abc", "", ""), ("1" + "0" * 70, "", ""),
    ],
)  # fmt: skip
def test_numbers_have_one_form(written, language, value):
    assert canonical(written, language) == value


@pytest.mark.parametrize(
    ("output", "language", "value"),
    [
        ("La réponse est 1 234.", "fr", "1234"), ("Ответ — 12 345 678 рублей", "ru", "12345678"),
        ("Sobran 1 234 euros", "es", "1234"), ("La réponse est 3 42.", "fr", "3"),
        ("La réponse est 1234 500", "fr", "1234"), ("The answer is 1 234.", "en", "1"),
    ],
)  # fmt: skip
def test_thousands_may_be_grouped_by_spaces_where_the_language_does(output, language, value):
    assert extract(output, EXTRACTORS.get("number"), Answer("number", language=language)).answer == value


@pytest.mark.parametrize(
    ("output", "language", "value"),
    [
        ("The answer is 3/4.", "", "0.75"), ("#### 3/4", "", "0.75"), ("3/4", "", "0.75"),
        ("The answer is -2/6 of it.", "", "-1/3"), ("Answer: 1 1/2 cups", "", "1.5"),
        ("\\boxed{7/8}", "", "0.875"), ("The answer is 1/2 = 0.5", "", "0.5"),
        ("The answer is 3/4/2024", "", "3"), ("It was on 3/4/2024", "", "2024"),
        ("The answer is 3/0.", "", ""),
        ("The answer is 1.5e3.", "", "1500"), ("#### 2E-2", "", "0.02"), ("-1.5e3", "", "-1500"),
        ("The answer is 3e", "", "3"), ("The answer is 12 eggs", "", "12"),
        ("La réponse est 1 234,5.", "fr", "1234.5"), ("La réponse est 1\u202f234,567", "fr", "1234.567"),
        ("Ответ: 12 345,25 рублей", "ru", "12345.25"), ("1\u00a0234", "", "1234"),
    ],
)  # fmt: skip
def test_fractions_powers_and_decimals_behind_grouped_thousands_are_read_whole(output, language, value):
    assert extract(output, EXTRACTORS.get("number"), Answer("number", language=language)).answer == value


@given(st.integers(0, 999), st.integers(1, 999), st.integers(0, 9))
def test_a_fraction_has_one_form_whatever_it_is_expanded_by(over, under, by):
    written = f"{over * (by + 1)}/{under * (by + 1)}"
    assert canonical(written) == canonical(f"{over}/{under}")
    found = Fraction(canonical(written))
    assert found == Fraction(over, under)


@pytest.mark.parametrize(
    "output", ["答案是 B。", "答案是B。", "答案：B，因为蓝色", "答えは B。", "答案是（B）。"]
)
def test_a_letter_may_end_a_sentence_in_chinese_or_japanese(output):
    assert read(output, "letter", LETTER)[0] == "(B)"
    assert read(output, "letter-cot", LETTER)[0] == "(B)"


@given(st.integers(-(10**12), 10**12))
def test_a_number_equals_itself_with_thousands_grouped(value):
    assert same(f"{value:,}", str(value))
    assert same(f"{value}.0", f"{value:,}")
    assert not same(str(value + 1), str(value))


@pytest.mark.parametrize(
    ("answer", "gold", "language"),
    [
        ("der Rhein", "Rhein", "de"),
        ("el río", "río", "es"),
        ("«Москва»", "Москва", "ru"),
        ("北京。", "北京", "zh"),
    ],
)
def test_articles_and_punctuation_of_a_language_do_not_count(answer, gold, language):
    metric = METRICS.get("squad-languages")
    assert metric.mark(answer, [gold], Answer("text", language=language)) == {"accuracy": 1.0, "f1": 1.0}
