"""Averages, intervals, paired tests, votes and rankings against brute force and published numbers."""

import math
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.evaluate.averages import AVERAGES, Task, normalised, normalised_average
from taskmill.evaluate.intervals import bootstrap, mcnemar, of_task, paired
from taskmill.evaluate.marks import METRICS
from taskmill.evaluate.ranking import Choices, auc, choose, macro_f1
from taskmill.evaluate.results import Mark, robustness, summary
from taskmill.evaluate.votes import maj_at, majority

# Chung et al. 2022 (2210.11416), Tables 17 to 19: direct and CoT accuracy of Flan-T5 Small, XL and XXL, and
# the chance of each task. Two cells that are not legible in the paper follow from its printed means.
BBH = {
    "boolean_expressions": (50, 54.0, 39.6, 56.0, 44.0, 54.4, 62.4),
    "causal_judgement": (50, 48.1, 42.8, 63.6, 56.7, 60.4, 55.6),
    "date_understanding": (17.17, 22.4, 20.4, 44.4, 41.6, 54.0, 58.8),
    "disambiguation_qa": (33.23, 31.2, 2.0, 67.2, 60.4, 66.4, 63.2),
    "dyck_languages": (0, 0, 0, 0, 0, 0.4, 0.4),
    "formal_fallacies": (50, 53.2, 46.8, 57.6, 54.4, 55.6, 54.4),
    "geometric_shapes": (9.82, 8.8, 4.0, 19.2, 16.8, 25.2, 25.2),
    "hyperbaton": (50, 65.2, 13.2, 62.4, 67.6, 66.4, 62.4),
    "logical_deduction_five_objects": (20, 22.0, 19.2, 47.2, 32.8, 54.0, 47.6),
    "logical_deduction_seven_objects": (14.29, 16.8, 11.2, 52.4, 28.4, 59.6, 51.2),
    "logical_deduction_three_objects": (33.33, 30.8, 30.0, 60.8, 51.2, 71.2, 63.2),
    "movie_recommendation": (24.62, 43.2, 20.4, 56.0, 49.6, 60.4, 41.2),
    "multistep_arithmetic_two": (0, 0, 1.6, 1.6, 0.4, 0.8, 0.4),
    "navigate": (50, 58.0, 58.0, 60.0, 46.0, 58.4, 60.0),
    "object_counting": (0, 5.6, 3.2, 36.4, 18.0, 42.0, 40.0),
    "penguins_in_a_table": (20.03, 21.9, 10.3, 40.4, 29.5, 42.5, 44.5),
    "reasoning_about_colored_objects": (12.11, 16.3, 10.8, 51.6, 49.6, 58.0, 50.8),
    "ruin_names": (24.93, 13.2, 0.8, 33.6, 26.0, 53.6, 35.6),
    "salient_translation_error_detection": (16.67, 22.4, 15.2, 43.2, 26.8, 43.2, 33.6),
    "snarks": (50.28, 46.6, 9.6, 66.3, 60.1, 77.0, 55.1),
    "sports_understanding": (50, 54.8, 54.0, 57.2, 58.8, 70.0, 63.2),
    "temporal_sequences": (25, 28.4, 17.2, 21.6, 22.8, 31.2, 30.0),
    "tracking_shuffled_objects_five_objects": (20, 22.4, 15.2, 13.5, 12.0, 18.8, 21.2),
    "tracking_shuffled_objects_seven_objects": (14.29, 14.0, 8.8, 8.4, 11.6, 13.6, 13.2),
    "tracking_shuffled_objects_three_objects": (33.33, 30.8, 25.6, 32.8, 31.6, 27.2, 30.0),
    "web_of_lies": (50, 53.6, 36.8, 48.8, 50.8, 52.8, 52.0),
    "word_sorting": (0, 2.0, 1.2, 4.8, 2.0, 6.4, 3.6),
}
FLAN = {  # model: columns above, MMLU direct and CoT, TyDiQA, MGSM, the printed normalised average
    "small": (1, 2, 28.7, 12.1, 1.1, 0.2, -3.1),
    "xl": (3, 4, 52.4, 45.5, 16.6, 1.9, 19.1),
    "xxl": (5, 6, 55.1, 48.6, 19.0, 4.9, 23.7),
}
# Flan-PaLM 540B with CoT, of the same tables, and the two halves as its Table 4 prints them.
PALM_COT = {
    "boolean_expressions": 83.2, "causal_judgement": 63.1, "date_understanding": 74.0,
    "disambiguation_qa": 69.6, "dyck_languages": 23.6, "formal_fallacies": 52.8, "geometric_shapes": 43.6,
    "hyperbaton": 88.8, "logical_deduction_five_objects": 52.4, "logical_deduction_seven_objects": 48.4,
    "logical_deduction_three_objects": 87.2, "movie_recommendation": 82.4, "multistep_arithmetic_two": 29.6,
    "navigate": 78.0, "object_counting": 88.8, "penguins_in_a_table": 72.6,
    "reasoning_about_colored_objects": 82.4, "ruin_names": 68.0, "salient_translation_error_detection": 51.6,
    "snarks": 76.4, "sports_understanding": 87.2, "temporal_sequences": 91.6,
    "tracking_shuffled_objects_five_objects": 50.8, "tracking_shuffled_objects_seven_objects": 38.0,
    "tracking_shuffled_objects_three_objects": 71.6, "web_of_lies": 100.0, "word_sorting": 33.2,
}  # fmt: skip


def bbh_means(scores):
    means = AVERAGES.get("bbh").means([Task(name, 250) for name in scores])
    return {kind: sum(scores[t] * share for t, share in own.items()) for kind, own in means.items()}


@pytest.mark.parametrize("model", FLAN)
def test_the_normalised_average_of_the_paper_comes_out(model):
    direct, cot, mmlu, mmlu_cot, tydiqa, mgsm, printed = FLAN[model]

    def bbh(column):
        return sum(normalised(row[column] / 100, row[0] / 100) for row in BBH.values()) / len(BBH)

    suites = {
        "mmlu": normalised(mmlu / 100, 0.25), "mmlu-cot": normalised(mmlu_cot / 100, 0.25),
        "bbh": bbh(direct), "bbh-cot": bbh(cot), "tydiqa": tydiqa, "mgsm-native-cot": mgsm,
    }  # fmt: skip
    found = normalised_average({name: {"normalised": value} for name, value in suites.items()})
    assert found == pytest.approx(printed, abs=0.25)
    del suites["tydiqa"]
    assert normalised_average({name: {"normalised": value} for name, value in suites.items()}) is None


def test_the_means_of_bbh_are_those_of_the_papers():
    xxl = bbh_means({name: row[5] for name, row in BBH.items()})
    assert xxl["macro"] == pytest.approx(45.3, abs=0.05)
    assert bbh_means({name: row[6] for name, row in BBH.items()})["macro"] == pytest.approx(41.4, abs=0.05)
    palm = bbh_means(PALM_COT)
    assert palm["nlp"] == pytest.approx(72.4, abs=0.05)
    assert palm["algorithmic"] == pytest.approx(61.3, abs=0.05)
    sizes = [n for n in BBH if n.startswith(("logical", "tracking"))]
    tasks = [v for n, v in PALM_COT.items() if n not in sizes]
    tasks += [np.mean([PALM_COT[n] for n in sizes if n.startswith(f)]) for f in ("logical", "tracking")]
    assert len(tasks) == 23
    assert palm["tasks_23"] == pytest.approx(np.mean(tasks))


@pytest.mark.parametrize("name", AVERAGES.names())
def test_the_weights_of_each_mean_add_up_to_one(name):
    tasks = [Task("en", 3, "Title Generation"), Task("de", 5, "Word Analogy"), Task("navigate", 2)]
    for share in AVERAGES.get(name).means(tasks).values():
        assert sum(share.values()) == pytest.approx(1)


def test_english_is_left_out_of_the_mean_over_languages():
    means = AVERAGES.get("languages").means([Task("en", 10), Task("de", 10), Task("fr", 30)])
    assert next(iter(means)) == "macro_without_english"
    assert means["macro_without_english"] == {"de": 0.5, "fr": 0.5}
    assert means["micro"] == {"en": 0.2, "de": 0.2, "fr": 0.6}


def marks_of(values, task="t", **more):
    return [Mark(f"{task}{i}", task, "x", "whole", {"accuracy": v}, **more) for i, v in enumerate(values)]


def test_results_do_not_depend_on_the_order_of_items():
    marks = marks_of([1.0, 0.0, 1.0], "a", chance=0.25) + marks_of([0.0, 1.0], "b", chance=0.5)
    settings = {"confidence": 0.95, "seed": 0}
    one = summary(marks, METRICS.get("exact"), AVERAGES.get("tasks"), **settings)
    assert one == summary(marks[::-1], METRICS.get("exact"), AVERAGES.get("tasks"), **settings)
    assert one["overall"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert one["averages"]["micro"]["accuracy"]["mean"] == pytest.approx(3 / 5)
    assert one["normalised"] == pytest.approx(((2 / 3 - 0.25) / 0.75 * 100 + 0) / 2, abs=1e-3)
    assert one["chance"] == (0.25 + 0.5) / 2
    assert one["tasks"]["a"]["n"] == 3
    assert one["tasks"]["a"]["low"] <= one["tasks"]["a"]["accuracy"] <= one["tasks"]["a"]["high"]


def test_failed_extractions_are_counted_apart_and_labels_have_their_own_accuracy():
    marks = [
        Mark("1", "t", "", "", {"accuracy": 0.0}, label="ok"),
        Mark("2", "t", "(A)", "whole", {"accuracy": 1.0}, label="ok"),
        Mark("3", "t", "(A)", "whole", {"accuracy": 0.0}, label="wrong groundtruth", mended=1.0),
        Mark("4", "t", "(A)", "whole", {"accuracy": 0.0}, label="no correct answer"),
    ]
    found = summary(marks, METRICS.get("exact"), AVERAGES.get("mmlu"), confidence=0.95, seed=0)
    assert found["tasks"]["t"]["extraction_failures"] == found["extraction_failures"] == 1
    assert found["extraction_failure_rate"] == 0.25
    assert found["rules"] == {"none": 1, "whole": 3}
    assert found["labels"]["ok"] == 0.5
    assert found["labels"]["error_aware"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["coverage"] == {"tasks": 1, "of": 57}
    assert found["normalised"] is None


def naive(values, weights, draws, seed):
    stream = np.random.default_rng(seed)
    means = np.zeros(draws)
    for task, share in weights.items():
        own = np.asarray(values[task])
        means += share * own[stream.integers(0, len(own), (draws, len(own)))].mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_is_that_of_resampled_items():
    stream = np.random.default_rng(5)
    values = {
        "a": stream.random(80).round(2).tolist(),
        "b": (stream.random(120) < 0.3).astype(float).tolist(),
    }
    weights = {"a": 0.25, "b": 0.75}
    found = bootstrap(values, weights, confidence=0.95, seed=0)
    low, high = naive(values, weights, 20_000, 1)
    assert found.mean == pytest.approx(0.25 * np.mean(values["a"]) + 0.75 * np.mean(values["b"]))
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_tasks_of_one_item_each_do_not_make_the_interval_vanish():
    values = {f"t{i}": [float(i % 3 == 0)] for i in range(60)}
    weights = dict.fromkeys(values, 1 / 60)
    found = bootstrap(values, weights, confidence=0.95, seed=0)
    whole = bootstrap(
        {"all": [v for own in values.values() for v in own]}, {"all": 1.0}, confidence=0.95, seed=0
    )
    assert found.mean == pytest.approx(1 / 3)
    assert found.low == pytest.approx(whole.low, abs=0.02)
    assert found.high == pytest.approx(whole.high, abs=0.02)


def test_an_average_of_nothing_but_wrong_answers_has_an_interval():
    values, weights = {"a": [0.0] * 10, "b": [0.0] * 10}, {"a": 0.5, "b": 0.5}
    found = bootstrap(values, weights, confidence=0.95, seed=0)
    assert found == pytest.approx(of_task([0.0] * 20, confidence=0.95, seed=0, name="t"))
    assert found.high > 0.1


@pytest.mark.parametrize("mark", [0.0, 1.0])
def test_no_number_of_tasks_makes_an_interval_empty(mark):
    for tasks in (1, 3, 7, 27, 57):  # the shares of some add up to a little under 1
        values = {str(i): [mark] * 20 for i in range(tasks)}
        found = bootstrap(values, dict.fromkeys(values, 1 / tasks), confidence=0.95, seed=0)
        expected = of_task([mark] * 20 * tasks, confidence=0.95, seed=0, name="all")
        assert found == pytest.approx(expected, abs=1e-9)


def test_one_tasks_interval_is_wilsons():
    found = of_task([1.0] * 10, confidence=0.95, seed=0, name="t")  # 10 of 10: Newcombe 1998 gives 0.7225
    assert found.low == pytest.approx(0.7225, abs=5e-5)
    assert found.high == 1
    found = of_task([1.0] * 81 + [0.0] * 182, confidence=0.95, seed=0, name="t")
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, Table I


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_exact_binomial_test(pairs):
    one, two = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    first = sum(a > b for a, b in zip(one, two, strict=True))
    n = first + sum(a < b for a, b in zip(one, two, strict=True))
    least = min(first, n - first)
    p = min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)
    assert mcnemar(one, two) == pytest.approx(p)
    assert mcnemar(two, one) == mcnemar(one, two)


def test_mcnemar_holds_for_thousands_of_items():
    one, two = [1.0] * 1100 + [0.0] * 1000, [0.0] * 1100 + [1.0] * 1000
    z = (1100 - 1000 - 1) / 2100**0.5  # the normal approximation with its correction for continuity
    from statistics import NormalDist

    assert mcnemar(one, two) == pytest.approx(2 * NormalDist().cdf(-z), rel=0.01)


def test_a_paired_comparison_knows_direction_wins_and_losses():
    one = {"a": [1.0, 0.0, 0.0, 0.0] * 10}
    two = {"a": [1.0, 1.0, 1.0, 0.0] * 10}
    found = paired(one, two, {"a": 1.0})
    assert (found["difference"], found["wins"], found["losses"], found["n"]) == (0.5, 20, 0, 40)
    assert found["low"] > 0.3
    assert found["p"] == pytest.approx(2 * 0.5**20)
    same = paired(one, one, {"a": 1.0})
    assert same["low"] == -same["high"] < 0
    assert (same["difference"], same["p"]) == (0, 1)
    graded = paired({"a": [0.1] * 30}, {"a": [0.6] * 30}, {"a": 1.0})
    assert graded["test"].endswith("sign flips")
    assert graded["p"] < 0.01


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=7), st.integers(1, 7))
def test_the_estimate_of_a_majority_is_the_mean_over_all_subsets(answers, k):
    k = min(k, len(answers))
    right = [answer == "a" for answer in answers]
    total = 0.0
    for chosen in combinations(answers, k):
        counts = {x: chosen.count(x) for x in set(chosen) if x}
        best = [x for x, n in counts.items() if n == max(counts.values())]
        total += ("a" in best) / len(best) if best else 0
    assert maj_at(k, answers, right) == pytest.approx(total / comb(len(answers), k))


def test_a_majority_breaks_ties_by_the_first_output():
    assert majority(["b", "a", "a", "b", "c"]) == "b"
    assert majority(["", "", "a"]) == "a"
    assert majority(["", ""]) == ""
    assert maj_at(64, ["a"] * 33 + ["b"] * 31, [True] * 33 + [False] * 31) == 1
    with pytest.raises(ValueError, match="3"):
        maj_at(3, ["a"], [True])


def test_each_way_to_normalise_may_choose_another_option():
    own = Choices((-4.0, -6.0, -9.0), (1, 3, 2))
    texts = [" no", " certainly not so", " it"]
    cue = Choices((-1.0, -9.0, -9.5), (1, 3, 2))
    blank = Choices((-3.0, -3.0, -9.5), (1, 3, 2))
    assert choose("sum", own, texts).option == 0
    assert choose("mean", own, texts).option == 1
    assert choose("bytes", own, texts).option == 1
    assert choose("unconditional", own, texts, cue, blank).option == 1
    assert choose("calibrated", own, texts, cue, blank).option == 2
    assert choose("sum", Choices((-1.0, -1.0), (1, 1)), ["a", "b"])[:2] == (0, True)
    assert choose("sum", Choices((float("-inf"), float("nan")), (1, 1)), ["a", "b"])[:2] == (0, True)


def test_macro_f1_is_the_mean_over_classes():
    golds, answers = ["a", "a", "b", "c"], ["a", "b", "b", ""]
    # by hand: a 2·1/(2+1), b 2·1/(1+2), c 0
    assert macro_f1(golds, answers) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert macro_f1(["a"], ["a"]) == 1


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(items):
    margins, first = [m / 2 for m, _ in items], [f for _, f in items]
    pairs = [
        (a > b) + (a == b) / 2
        for a, one in zip(margins, first, strict=True)
        for b, other in zip(margins, first, strict=True)
        if one and not other
    ]
    found = auc(margins, first)
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    # The classes exchanged, and with them the margins' signs.
    other = auc([-m for m in margins], [not f for f in first])
    assert other == (pytest.approx(found) if pairs else None)


def test_two_classes_have_an_auc_and_three_have_none():
    def marks(classes, margin):
        return [
            Mark(
                str(i),
                "t",
                classes[0],
                "sum",
                {"accuracy": 1.0},
                classes[i % 2],
                margin=margin and -i,
                classes=classes,
            )
            for i in range(1, 9)
        ]

    settings = {"confidence": 0.95, "seed": 0}
    two = summary(marks(("Yes", "No"), 1), METRICS.get("labels"), AVERAGES.get("items"), **settings)
    assert two["tasks"]["t"]["auc"] == 6 / 16  # Yes is 2, 4, 6, 8: above it in 0, 1, 2 and 3 of 4 pairs
    three = summary(
        marks(("Yes", "No", "Maybe"), None), METRICS.get("labels"), AVERAGES.get("items"), **settings
    )
    assert "auc" not in three["tasks"]["t"]
    assert choose("sum", Choices((-2.0, -1.0), (1, 1)), ["a", "b"]).margin == -1
    assert choose("sum", Choices((-math.inf, -math.inf), (1, 1)), ["a", "b"]).margin == 0
    assert choose("sum", Choices((-2.0, -1.0, -3.0), (1, 1, 1)), ["a", "b", "c"]).margin is None


def test_robustness_is_mean_worst_and_spread():
    found = robustness([0.5, 0.2, 0.8])
    assert (found["mean"], found["worst"], found["spread"]) == (0.5, 0.2, 0.6)
