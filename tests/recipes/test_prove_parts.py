"""The parts of a proof: the test as it is read and asked, the statistics, the plan, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prove_student import passage, write

from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.general import probes
from taskmill.recipes.prove import of_mapping
from taskmill.recipes.prove.config import Target, prompts
from taskmill.recipes.prove.evidence import Outcomes, effects, macro_f1, scores, shown, verdict_of
from taskmill.recipes.prove.items import asked, read_test
from taskmill.recipes.prove.overlap import Guard
from taskmill.recipes.prove.plan import Making, Sizes, chosen, seconds
from taskmill.recipes.students import ROOM, Speed
from taskmill.record import Example
from taskmill.render import prompt
from taskmill.report.prove import rows_needed
from taskmill.tasks import get
from taskmill.templates.words import load

# the test


@pytest.mark.parametrize(
    ("cell", "golds"),
    [
        (["two", "two", "the two"], ("two", "the two")),
        ({"text": ["two"], "answer_start": [3]}, ("two",)),
        ("two", ("two",)),
        (2, ("2",)),
        (2.0, ("2",)),
        ("['two', \"the two\"]", ("two", "the two")),
        ("{'text': ['two'], 'answer_start': [3]}", ("two",)),
        ("[2] of them", ("[2] of them",)),
    ],
)
def test_answers_may_be_a_list_squads_or_a_text(tmp_path, cell, golds):
    path = write(tmp_path / "t.parquet", [{"context": "one two", "question": "what?", "answers": cell}])
    (question,) = read_test(Target("t", "", path), 0).questions
    assert question.golds == golds


def test_labels_stand_in_the_order_of_their_meaning(tmp_path):
    rows = [{"evidence": passage(i), "claim": f"claim {i}", "label": label}
            for i, label in enumerate(["Neutral", "Refutes", "Supports", "Refutes"])]  # fmt: skip
    test = read_test(Target("t", "", write(tmp_path / "t.parquet", rows), "nli"), 0)
    assert test.labels == ("Supports", "Refutes", "Neutral")
    assert {item.choices for item in asked(test)} == {test.labels}


@pytest.mark.parametrize(
    ("column", "named", "labels"),
    [
        ([1, 0, 1], ("no", "yes"), ("yes", "no")),
        ([1.0, 0.0, 1.0], ("No", "Yes"), ("Yes", "No")),
        ([1, 0, 1], ("0", "1"), ("0", "1")),
        ([True, False, True], (), ("True", "False")),
        (["b", "a", "b"], ("b", "a"), ("b", "a")),
    ],
)
def test_labels_as_numbers_are_what_the_user_says_they_mean(tmp_path, column, named, labels):
    rows = [{"context": passage(i), "question": f"is it {i}?", "label": v} for i, v in enumerate(column)]
    test = read_test(Target("t", "", write(tmp_path / "t.parquet", rows), "ynqa", named), 0)
    assert test.labels == labels
    said = {q.question: q.golds for q in test.questions}
    first, second = (labels[0], labels[1]) if named != ("0", "1") else ("1", "0")
    assert said == {"is it 0?": (first,), "is it 1?": (second,), "is it 2?": (first,)}


def test_numbers_as_labels_are_not_guessed_at(tmp_path):
    rows = [{"context": passage(i), "question": f"is it {i}?", "label": i % 3} for i in range(6)]
    path = write(tmp_path / "t.parquet", rows)
    with pytest.raises(InputError, match=r"t\.parquet: its labels are numbers \(0, 1, 2\); say .* --labels"):
        read_test(Target("t", "", path, "nli"), 0)
    with pytest.raises(InputError, match=r"there is a label 2, and --labels names 0 to 1"):
        read_test(Target("t", "", path, "nli", ("entailment", "contradiction")), 0)


def test_all_golds_count(tmp_path):
    rows = [{"context": "one two three", "question": "what?", "answers": ["one two", "three"]}]
    test = read_test(Target("t", "", write(tmp_path / "t.parquet", rows)), 0)
    said = ["three", "One two.", "one", "four", ""]
    assert test.graded(said)[:, 0].tolist() == pytest.approx([1, 1, 2 / 3, 0, 0])


@pytest.mark.parametrize("task", sorted(prompts()))
def test_test_prompts_are_five_or_more_and_none_is_learned(task):
    own = prompts()[task]
    learned = {w.strip() for entry in load().values() for w in entry["instruction"]}
    assert len(set(own)) == len(own) >= 5
    slots = ["{{context}}"] + ["{labels}"] * bool(getattr(get(task), "surfaces", ()))
    for wording in own:
        assert all(wording.count(slot) == 1 for slot in slots), wording
        assert wording.strip() not in learned


def test_a_question_cannot_fill_another_slot(tmp_path):
    rows = [{"context": "one two three", "question": "{labels} {{context}} {question}?", "answers": ["one"]}]
    test = read_test(Target("t", "", write(tmp_path / "t.parquet", rows)), 0)
    for item in asked(test):
        assert prompt(item.example).count("{labels} {{context}} {question}?") == 1
        assert prompt(item.example).count("one two three") == 1


# the statistics


def test_macro_f1_is_the_mean_of_the_labels_own():
    rng = np.random.default_rng(4)
    for _ in range(20):
        gold, said = rng.integers(0, 3, 30), rng.integers(0, 4, 30)
        own = []
        for label in range(4):
            hit = sum((g == label) and (s == label) for g, s in zip(gold, said, strict=True))
            wrong = sum((g == label) != (s == label) for g, s in zip(gold, said, strict=True))
            own.append(2 * hit / (2 * hit + wrong) if hit or wrong else 0.0)
        assert macro_f1(gold, said, 4) == pytest.approx(np.mean(own))


@given(st.integers(1, 3), st.integers(2, 6), st.integers(0, 3), st.integers(0, 2**32))
def test_weights_of_questions_and_seeds_are_repetitions(seeds, items, labels, seed):
    rng = np.random.default_rng(seed)
    labels = labels if labels > 1 else 0
    values = (
        rng.integers(0, labels, (seeds, 2, items)).astype(float) if labels else rng.random((seeds, 2, items))
    )
    gold = rng.integers(0, max(labels, 1), items)
    of_items = rng.multinomial(items, np.full(items, 1 / items))
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds))
    found = Outcomes(values, gold, labels).resampled(
        of_seeds[None].astype(float), of_items[None].astype(float)
    )
    pick = np.repeat(np.arange(items), of_items)
    again = []
    for s in np.repeat(np.arange(seeds), of_seeds):
        for wording in range(2):
            own = values[s, wording, pick]
            again.append(macro_f1(gold[pick], own, labels) if labels else own.mean())
    assert found[0] == pytest.approx(np.mean(again))


def marks(mean, seeds=3, items=100, luck=0):
    rng = np.random.default_rng(luck)
    return Outcomes((rng.random((seeds, 5, items)) < mean).astype(float), np.zeros(items, np.int64))


def test_the_interval_covers_as_often_as_it_says():
    true, inside = 0.4, 0
    for luck in range(60):
        found = scores({"A": marks(true, 3, 80, luck)}, 3, luck, "x")["A"]
        _, (low, high) = shown(found, 0.9)
        inside += low <= true <= high
    assert inside >= 51  # it errs on the wide side; 54 are expected of an exact one, sd 2.3


@pytest.mark.parametrize(
    ("ours", "base", "items", "word"),
    [(0.6, 0.3, 100, "helps"), (0.3, 0.6, 100, "does not help"), (0.45, 0.4, 12, "undecided")],
)
def test_the_verdict_follows_the_intervals(ours, base, items, word):
    found = scores({"none": marks(base, 1, items, 1), "ours": marks(ours, 3, items, 2)}, 3, 0, "x")
    state, said = verdict_of(found, 0.02, 0.95, "token F1", " here")
    assert state == word
    assert said.startswith(f"ours {word} here: token F1 0.")


@pytest.mark.parametrize(
    ("ours", "base", "word", "what"),
    [
        (0.0, 0.0, "undecided", "undecided against none (+0.000, the same in every resample)"),
        (1.0, 0.0, "helps", "better than none (+1.000, the same in every resample)"),
    ],
)
def test_an_interval_without_width_is_said_in_words(ours, base, word, what):
    found = scores({"none": marks(base, 1, 40), "ours": marks(ours, 3, 40)}, 3, 0, "x")
    state, said = verdict_of(found, 0.02, 0.95, "token F1")
    assert state == word
    assert said == f"ours {word}: token F1 {ours:.3f} (every answer marked alike); {what}; intervals at 95 %."


@pytest.mark.parametrize(("asked", "word"), [(1, "undecided"), (5, "undecided"), (6, "helps")])
def test_a_few_questions_decide_nothing(asked, word):
    found = scores({"none": marks(0.2, 1, asked), "ours": marks(0.9, 3, asked)}, 3, 0, "x")
    state, said = verdict_of(found, 0.02, 0.95, "token F1", questions=asked)
    assert state == word
    assert (f"as {asked} of the 6 questions were asked that a verdict takes" in said) == (asked < 6)


def test_labels_for_a_test_with_answers_are_refused(tmp_path):
    rows = [{"context": "A cat sat.", "question": "Who sat?", "answers": ["A cat"]}]
    target = Target("t", "", write(tmp_path / "t.parquet", rows), "exqa", ("yes", "no"))
    with pytest.raises(ConfigError, match="a test of exqa has answers, not labels"):
        read_test(target, 0)


@pytest.mark.parametrize("task", sorted(prompts()))
def test_all_wordings_begin_with_the_passage(task):
    assert all(wording.startswith("{{context}}\n") for wording in prompts()[task])


def test_an_effect_is_what_the_candidate_has_over_the_others():
    arms = ["none", "random", "B", "tapt", "ours-unfiltered", "ours", "A", "ours+replay"]
    lines = effects({arm: np.zeros(3) for arm in arms}, 0.95)
    assert len(lines) == 28
    wanted = {"ours-none", "ours-tapt", "ours-ours-unfiltered", "ours+replay-ours", "B-A", "A-none", "ours-A"}
    assert wanted <= set(lines)


def test_short_contexts_are_still_found_whole(tmp_path):
    rows = [{"context": "No way!", "label": "negative"}, {"context": "Fine by me", "label": "positive"}]
    test = read_test(Target("t", "", write(tmp_path / "t.parquet", rows), "sentiment"), 0)
    guard = Guard(test.questions)
    assert guard.overlap("no WAY") == "exact"
    assert guard.overlap("No way around it") == ""
    assert guard.wrong([Example("", "", "", "Something else", "yes")]) == [""]


def test_a_short_passage_and_its_question_are_found_in_what_is_written(tmp_path):
    row = {"context": "A man plays on a stage.", "question": "He makes music.", "label": "yes"}
    other = {"context": "Nobody is here.", "question": "It is empty.", "label": "no"}
    guard = Guard(read_test(Target("t", "", write(tmp_path / "t.parquet", [row, other]), "nli"), 0).questions)

    def wrong(instruction, context=""):
        return guard.wrong([Example("", "", context, instruction, "yes")])[0]

    assert "passage of the test and its question" in wrong(
        "Premise: A man plays on a stage. Hypothesis: he makes MUSIC. Does it follow?"
    )
    assert wrong("Premise: A man plays on a stage. Hypothesis: he is alone.") == ""
    assert wrong("He makes music.", "A man plays on the piano.") == ""
    assert wrong("Nobody is here. It is empty.") == ""  # six words say this by chance


# time


def test_epochs_are_in_the_speed_that_was_measured():
    def of(epochs):
        config, _ = of_mapping({"text": "p", "test": "t", "train": {"epochs": epochs}})
        return seconds(config, Speed(2.0, 0.1, 0.01), Making(0.5, 0.8, 200.0), Sizes(50, 30), 5, 40)

    assert of(3) == of(1) > 0


@given(
    st.floats(60, 7200),
    st.integers(1, 900),
    st.integers(1, 300),
    st.floats(0.001, 1.0),
    st.floats(1e-4, 1e-1),
)
def test_what_is_planned_fits_the_budget(limit, passages, items, item_s, token_s):
    config, _ = of_mapping({"text": "p", "test": "t", "seeds": 2})
    speed, making, most = Speed(2.0, item_s, token_s), Making(0.5, 0.8, 200.0), Sizes(passages, items)
    try:
        found = chosen(config, speed, making, most, limit, 5, 40)
    except UsageError:
        least = Sizes(min(20, passages), min(30, items))
        assert seconds(config, speed, making, least, 5, 40) > ROOM * limit * (1 - 1e-9)
        return
    assert seconds(config, speed, making, found, 5, 40) <= ROOM * limit * (1 + 1e-9)
    assert 0 < found.passages <= passages
    assert 0 < found.questions <= items
    more = Sizes(min(passages, found.passages + 1), min(items, found.questions + 1))
    assert more == found or seconds(config, speed, making, more, 5, 40) > ROOM * limit


# bad input


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"arms": ["none", "owrs"]}, ConfigError, "Did you mean"),
        ({"arms": ["none"]}, ConfigError, "two or more"),
        ({"arms": ["ours", "ours"]}, ConfigError, "each once"),
        ({"arms": ["none", "ours=x.parquet"]}, ConfigError, "not one of ours"),
        ({"arms": ["none", "random"]}, UsageError, "--replay"),
        ({"seeds": 0}, ConfigError, "seeds: 0"),
        ({"budget": "soon"}, ConfigError, "write 90s, 30m or 2h"),
        ({"task": "coref"}, ConfigError, "no test prompts for coref"),
        ({"arms": ["none", "replay=x.parquet"]}, ConfigError, "not one of ours"),
        ({"arms": ["a=1", "a-b=2", "b-c=3", "c=4"]}, ConfigError, "'a-b-c' would be the difference of two"),
        ({"sizes": ["ten"]}, ConfigError, "not all numbers"),
        ({"sizes": ["²"]}, ConfigError, "not all numbers"),
        ({"reach": 0.4}, UsageError, "give --sizes"),
        ({"reach": 1.5}, ConfigError, "reach: 1.5 is out of range"),
        ({"targets": [{"name": "plan.json"}]}, ConfigError, "no name for a folder"),
        ({"targets": [{"name": "ä" * 60}]}, ConfigError, "no name for a folder"),
        ({"train": {"evaluations": 3}}, ConfigError, "the test validates here"),
        ({"labels": ["yes", "no", "yes"]}, ConfigError, "labels: yes, no, yes; name two or more, each once"),
        ({"targets": []}, ConfigError, "write a list"),
        ({"targets": [{"name": "a"}, {"name": "a"}]}, ConfigError, "a name of its own"),
        ({"targets": [{"name": "units"}]}, ConfigError, "no name for a folder"),
        ({"targets": [{"tesst": "x"}]}, ConfigError, "Did you mean"),
        ({"txt": "x"}, ConfigError, "Did you mean"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_read(changed, error, said):
    with pytest.raises(error, match=said):
        of_mapping({"text": "pool", "test": "test", **changed})


@pytest.mark.parametrize(
    ("rows", "task", "said"),
    [
        ([{"context": "a b", "question": "c?"}], "exqa", "row 0: no text in answers"),
        ([{"context": "a b", "question": "c?", "answers": []}], "exqa", "no text in answers"),
        ([{"question": "c?", "answers": ["a"]}], "exqa", "no text in context"),
        ([{"context": "a b", "question": "c?", "label": "yes"}], "ynqa", "1 different labels"),
        ([{"context": "a b", "question": "c?", "answers": ["yes"]}], "ynqa", "no text in label"),
        ([{"context": "a b", "question": "c?", "label": float("nan")}], "ynqa", "row 0: no text in label"),
        ([{"context": "a b", "question": "c?", "label": ["yes", "no"]}], "ynqa", "row 0: 2 labels"),
        ([{"ctx": "a b", "question": "c?", "answers": ["a"]}], "exqa", "there are ctx, question, answers"),
        (
            [{"context": "a b", "question": "c?", "answers": "{'text': array(['a'], dtype=object)}"}],
            "exqa",
            "row 0: the answers are a structure written as text; save the table as Parquet",
        ),
        ([{"context": "a b", "question": "c?", "answers": "['a' 'b']"}], "exqa", "written as text"),
    ],
)
def test_a_test_that_is_none_is_refused_by_file_and_row(tmp_path, rows, task, said):
    path = write(tmp_path / "test.parquet", rows)
    with pytest.raises(InputError, match=said):
        read_test(Target("t", "", path, task), 0)


def test_probes_are_different_and_of_one_right_end():
    found = probes("", 0)
    assert 30 <= len(found.items) <= 60
    assert len({item.example.instruction for item in found.items}) == len(found.items)
    for item in found.items:
        assert len(set(item.choices)) == len(item.choices) >= 4
        assert item.example.response in item.choices
    assert sum(len(text.split()) for text in found.texts) > 400
    assert found.right([item.example.response for item in found.items]) == 1.0


def test_the_rows_a_score_takes_are_told_in_words():
    told = {"score": 0.4, "value": 1234.4, "low": 300.0, "high": None}
    assert rows_needed(told, 2000) == "A score of 0.4 takes 1,234 rows by the curve (300 to never)."
    assert rows_needed(told, 200).endswith("; more than the 200 tried, so it is extrapolated.")
    never = told | {"value": None}
    assert rows_needed(never, 200) == "The curve does not reach 0.4 (interval: 300 to never)."
