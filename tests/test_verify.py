"""Verification by a second model: what it refuses, what is stored, and that thresholds cost no call."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from taskmill.backends import GENERATORS, ModelConfig
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.curate.verify import CHECKS, Score, Thresholds, applies, decide, questions, score
from taskmill.errors import ConfigError
from taskmill.export import export_run
from taskmill.ingest import IngestConfig
from taskmill.recipes import SynthConfig, synth
from taskmill.recipes.estimate import estimate
from taskmill.recipes.verify import VerifyConfig
from taskmill.record import Example, Reason, content_id, examples
from taskmill.store import parts

PASSAGE = "The harbour of Tarn was opened in 1902. Ida Holm designed its lighthouse."


def example(task="exqa", response="Ida Holm", **more):
    instruction = (
        "{{context}}\n\nQuestion: Who designed the lighthouse?\nAnswer with words taken from the text above."
    )
    return Example(content_id(task, response), task, PASSAGE, instruction, response, **more)


def answered(check, e, text):
    (asked,) = questions("m", (check,), e)
    return score(asked, Completion(asked.key, text))


def test_the_round_trip_is_the_task_types_own_grade():
    assert answered("round-trip", example(), "Ida Holm").score == 1.0
    assert answered("round-trip", example(), "It was Ida Holm.").score == pytest.approx(2 / 3, abs=0.14)
    assert answered("round-trip", example(), "in 1902").score == 0.0
    label = example("ynqa", "Yes", options=("Yes", "No"), answer_index=0)
    assert answered("round-trip", label, "Yes").score == 1.0
    assert answered("round-trip", label, "No").score == 0.0


def test_the_answerer_sees_the_passage_in_the_round_trip_only():
    for check in ("round-trip", "closed-book"):
        (asked,) = questions("m", (check,), example())
        text = asked.messages[0][1]
        assert ("harbour of Tarn" in text) == (check == "round-trip")
        assert "Who designed" in text
        assert "{{context}}" not in text
    (asked,) = questions("m", ("faithful",), example())
    assert PASSAGE in asked.messages[0][1]
    assert "Ida Holm" in asked.messages[0][1]


def test_labels_are_asked_as_a_closed_set():
    label = example("nli", "Maybe", options=("Yes", "No", "Maybe"), answer_index=2)
    (asked,) = questions("m", ("round-trip",), label)
    assert asked.sampling.choices == ("Yes", "No", "Maybe")
    (free,) = questions("m", ("round-trip",), example())
    assert free.sampling.choices == ()


def test_types_with_many_right_answers_are_asked_of_the_judge_only():
    for task in ("qg", "summarization", "paraphrase", "text_gen", "sent_comp"):
        asked = [c for c in CHECKS if applies(c, example(task))]
        assert asked == ["faithful", "judge", "expected", "ask-llm", "toxic"]
    assert not applies("closed-book", example("sentiment"))


def test_decisions_follow_the_thresholds_and_name_the_evidence():
    def found(**scores):
        given = {k.replace("_", "-"): Score("x", k, v, "said", "call") for k, v in scores.items()}
        lost = decide(example(), given, Thresholds())
        return lost and lost[0]

    assert found(round_trip=0.5) is None
    assert found(round_trip=0.49) == Reason.NOT_REPRODUCED
    assert found(round_trip=1.0, closed_book=0.8) == Reason.NEEDS_NO_PASSAGE
    assert found(round_trip=1.0, closed_book=0.79) is None
    assert found(faithful=0.0) == Reason.UNFAITHFUL
    assert found(faithful=None) == Reason.CALL_FAILED
    with pytest.raises(ConfigError, match="round-trip"):
        VerifyConfig(checks=("roundtrip",))


class Reader(Echo):
    """Agrees with the response, except for a share of the questions; counts what it is asked."""

    calls = 0
    wrong = 0.0
    errors = 0.0

    def generate(self, requests):
        for c in super().generate(requests):
            type(self).calls += 1
            share = int(c.key[:8], 16) / 2**32
            if share < self.errors:
                yield Completion(c.key, finish="error", error="503 from the server")
            else:
                yield replace(c, text="something else") if share < self.errors + self.wrong else c


@pytest.fixture
def reader():
    kind = type("Reader", (Reader,), {"calls": 0})
    GENERATORS.register("reader", lambda name, revision, config: kind("reader"))
    yield kind
    GENERATORS.unregister("reader")


def config(texts, checks=("round-trip",), **changes):
    base = SynthConfig(
        sources=(str(texts),),
        task=("exqa",),
        model=ModelConfig(ref="echo:"),
        ingest=IngestConfig(),
        verify=VerifyConfig(checks, "reader:x"),
    )
    return replace(base, **changes)


def kept(run, stage="4-verify"):
    return [e for p in parts(run / stage / "kept") for e in examples(pq.read_table(p))]


def test_what_the_reader_does_not_reproduce_is_dropped_with_its_answer(texts, tmp_path, reader):
    reader.wrong = 0.5
    manifest = synth(config(texts), tmp_path / "run")
    entry = manifest["funnel"]["verify"]
    assert entry["in"] == manifest["funnel"]["curate"]["kept"]
    assert entry["kept"] + sum(entry["dropped"].values()) == entry["in"]
    assert 0 < entry["dropped"]["not_reproduced"] < entry["in"]
    rows = [r for p in parts(tmp_path / "run/4-verify/scores") for r in pq.read_table(p).to_pylist()]
    assert len(rows) == entry["in"]
    assert {r["score"] for r in rows} == {0.0, 1.0}
    exported = export_run(tmp_path / "run", tmp_path / "out.jsonl", "messages")
    assert exported.rows == entry["kept"] == len(kept(tmp_path / "run"))
    assert manifest["tasks"]["exqa"]["accepted"] == entry["kept"]


def test_another_threshold_decides_again_without_a_call(texts, tmp_path, reader):
    reader.wrong = 0.5
    first = synth(config(texts), tmp_path / "run")
    calls = reader.calls
    loose = VerifyConfig(("round-trip",), "reader:x", Thresholds(round_trip=0.0))
    second = synth(config(texts, verify=loose), tmp_path / "run")
    assert reader.calls == calls
    assert second["funnel"]["verify"]["kept"] == first["funnel"]["verify"]["in"]


def test_an_estimate_says_what_verification_will_ask(texts, tmp_path, reader):
    wanted = config(texts, ("round-trip", "judge"), task=("exqa", "qg"))
    found = estimate(wanted, tmp_path / "dry")
    whole = synth(wanted, tmp_path / "whole")
    asked = sum(own["asked"] for own in whole["verify"]["checks"].values())
    assert found["verify"]["calls"]["low"] <= asked <= found["verify"]["calls"]["high"]
    assert estimate(replace(wanted, target=5), tmp_path / "dry")["verify"]["calls"]["expected"] == 5 * 3
    assert "verify" not in estimate(replace(wanted, verify=VerifyConfig()), tmp_path / "dry")


def test_a_judge_whose_verdict_cannot_be_read_is_not_asked_again(texts, tmp_path, reader):
    reader.wrong = 0.5  # "something else": no score in it
    checks = ("judge",)
    first = synth(config(texts, checks), tmp_path / "run")
    entry = first["funnel"]["verify"]
    assert 0 < entry["dropped"]["unreadable_verdict"] < entry["in"]
    assert first["verify"]["checks"]["judge"]["failed"] == 0
    assert first["verify"]["checks"]["judge"]["unreadable"] > 0
    calls = reader.calls
    strict = VerifyConfig(checks, "reader:x", Thresholds(judge=5.5))
    second = synth(config(texts, verify=strict), tmp_path / "run")
    assert reader.calls == calls
    lost = {
        r["id"]: r for p in parts(tmp_path / "run/4-verify/dropped") for r in pq.read_table(p).to_pylist()
    }
    assert len(lost) == entry["in"]
    assert {r["reason"] for r in lost.values()} == {"unreadable_verdict", "low_score"}
    assert "agrees" in next(r["detail"] for r in lost.values() if r["reason"] == "low_score")
    assert (
        second["funnel"]["verify"]["dropped"]["unreadable_verdict"] == entry["dropped"]["unreadable_verdict"]
    )


def test_a_target_counts_verified_examples(texts, tmp_path, reader):
    reader.wrong = 0.3
    manifest = synth(config(texts, target=3, max_attempts=9), tmp_path / "run")
    assert manifest["exit"] == {"code": 0, "reason": "done"}
    assert len(kept(tmp_path / "run")) == 3
    reader.wrong = 1.0
    short = synth(config(texts, target=4, max_attempts=2), tmp_path / "short")
    assert short["exit"]["code"] == 3
    assert "exqa 0 of 4" in short["exit"]["reason"]


def test_failed_questions_are_asked_again_and_nothing_unverified_is_kept(texts, tmp_path, reader):
    reader.errors = 0.6
    first = synth(config(texts), tmp_path / "run")
    failed = first["funnel"]["verify"]["dropped"]["call_failed"]
    assert failed > 0
    reader.errors = 0.0
    calls = reader.calls
    second = synth(config(texts), tmp_path / "run")
    assert reader.calls == calls + failed
    assert second["funnel"]["verify"]["kept"] == second["funnel"]["verify"]["in"]


def test_without_verification_the_stage_goes_and_export_takes_the_curated(texts, tmp_path, reader):
    reader.wrong = 1.0
    synth(config(texts), tmp_path / "run")
    plain = synth(config(texts, verify=VerifyConfig()), tmp_path / "run", update=True)
    assert not (tmp_path / "run" / "4-verify").exists()
    assert (
        export_run(tmp_path / "run", tmp_path / "o.jsonl", "messages").rows
        == plain["funnel"]["curate"]["kept"]
    )


def test_two_stages_give_the_same_examples_as_one_and_close_label_sets(texts, tmp_path):
    asked = []

    class Spy(Echo):
        def generate(self, requests):
            def seen():
                for request in requests:
                    asked.append(request)
                    yield request

            yield from super().generate(seen())

    GENERATORS.register("spy", lambda name, revision, config: Spy("spy"))
    try:
        model = ModelConfig(ref="spy:bonito", protocol="bonito-attributes")
        one = config(texts, (), task=("exqa", "ynqa"), model=model, two_stage="no")
        synth(one, tmp_path / "one")
        single = len(asked)
        manifest = synth(replace(one, two_stage="yes"), tmp_path / "two")
    finally:
        GENERATORS.unregister("spy")
    pairs = [{(e.instruction, e.response) for e in kept(tmp_path / r, "3-curate")} for r in ("one", "two")]
    assert pairs[0] == pairs[1] != set()
    second = [r for r in asked[single:] if r.sampling.temperature == 0]
    assert len(asked) - single == 2 * len(second) == 2 * single
    assert {r.sampling.choices for r in second if r.payload.task == "ynqa"} == {("Yes", "No")}
    assert all(r.prompt.endswith("\n<|pipe|>\n") for r in second)
    assert manifest["tasks"]["exqa"]["requests"] == single  # two calls for each of half as many candidates


def test_a_cost_limit_needs_both_models_prices(texts, tmp_path, reader):
    prices = tmp_path / "prices.yaml"
    prices.write_text("'echo:': {prompt: 1, completion: 1}\n")
    limited = BudgetConfig(max_cost=1.0, prices=str(prices))
    with pytest.raises(ConfigError, match="reader:x"):
        synth(config(texts, budget=limited), tmp_path / "run")


def test_a_budget_that_ends_in_verification_is_said_and_taken_up_again(texts, tmp_path, reader):
    whole = synth(config(texts), tmp_path / "whole")
    calls = whole["calls"]["made"]
    short = synth(config(texts, budget=BudgetConfig(max_calls=calls - 2)), tmp_path / "run")
    assert short["exit"]["code"] == 3
    assert short["funnel"]["verify"]["dropped"]["call_failed"] == 2
    again = synth(config(texts, budget=BudgetConfig(max_calls=100)), tmp_path / "run")
    assert again["exit"]["code"] == 0
    assert again["calls"]["made"] == 2
    assert again["funnel"]["verify"]["kept"] == whole["funnel"]["verify"]["kept"]
