"""The main job from files to a run folder, with backends whose behaviour is known exactly."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from taskmill.backends import GENERATORS, ModelConfig
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.errors import BackendError, ConfigError, InputError, RunFolderError, UnknownName, UsageError
from taskmill.export import export_run
from taskmill.ingest import IngestConfig
from taskmill.recipes import SynthConfig, synth
from taskmill.record import Reason, examples
from taskmill.store import parts


class Flaky(Echo):
    """Echo, but a share of its replies (drawn from the key) is garbage, and some calls fail."""

    calls = 0
    garbage = 0.0
    errors = 0.0

    def generate(self, requests):
        for c in super().generate(requests):
            type(self).calls += 1
            share = int(c.key[:8], 16) / 2**32
            if share < self.errors:
                yield Completion(c.key, finish="error", error="503 from the server")
            elif share < self.errors + self.garbage:
                yield replace(c, text="lorem ipsum")
            else:
                yield c


@pytest.fixture
def flaky():
    kind = type("Flaky", (Flaky,), {"calls": 0})
    GENERATORS.register("flaky", lambda name, revision, config: kind("flaky"))
    yield kind
    GENERATORS.unregister("flaky")


def config(texts, **changes):
    base = SynthConfig(
        sources=(str(texts),), task=("exqa", "ynqa"), model=ModelConfig(ref="echo:"), ingest=IngestConfig()
    )
    return replace(base, **changes)


def kept(run, stage="3-curate"):
    return [e for p in parts(run / stage / "kept") for e in examples(pq.read_table(p))]


def assert_nothing_vanished(manifest):
    for stage, entry in manifest["funnel"].items():
        assert entry["kept"] + sum(entry["dropped"].values()) == entry["in"], stage
        assert set(entry["dropped"]) <= {str(r) for r in Reason}
    funnel = manifest["funnel"]
    assert funnel["curate"]["in"] == funnel["synthesize"]["kept"]
    assert sum(t["accepted"] for t in manifest["tasks"].values()) == funnel["curate"]["kept"]


def test_every_passage_becomes_a_task_of_each_type(texts, tmp_path):
    manifest = synth(config(texts), tmp_path / "run")
    assert manifest["exit"] == {"code": 0, "reason": "done"}
    assert manifest["calls"] == {"made": 12, "reused": 0, "failed": 0, "total": 12}
    assert_nothing_vanished(manifest)
    found = kept(tmp_path / "run")
    assert {e.task for e in found} == {"exqa", "ynqa"}
    assert [e.id for e in found] == sorted(e.id for e in found)
    for e in found:
        assert e.source.url.startswith("texts/")
        assert e.origin.model == "echo:"
        assert e.origin.template
        assert len(e.origin.call) == 32
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000


def test_the_same_command_again_does_nothing(texts, tmp_path, flaky):
    c = config(texts, model=ModelConfig(ref="flaky:"))
    synth(c, tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("*/kept/*")}
    calls = flaky.calls
    manifest = synth(c, tmp_path / "run")
    assert flaky.calls == calls
    assert manifest["calls"]["made"] == 0
    assert manifest["calls"]["reused"] == calls
    assert {p: p.read_bytes() for p in (tmp_path / "run").glob("*/kept/*")} == before


def test_ten_more_documents_cost_ten_documents(texts, tmp_path, flaky):
    c = config(texts, model=ModelConfig(ref="flaky:"), task=("exqa",))
    synth(c, tmp_path / "run")
    first = flaky.calls
    for i in range(10):
        (texts / f"new{i}.txt").write_text(
            f"Document {i} tells at length of thing {i}. It is not like others."
        )
    manifest = synth(c, tmp_path / "run")
    assert flaky.calls - first == 10
    assert manifest["calls"] == {"made": 10, "reused": first, "failed": 0, "total": first + 10}


def test_results_do_not_depend_on_file_order_or_names(texts, tmp_path):
    synth(config(texts), tmp_path / "a")
    for path in sorted(texts.iterdir()):
        path.rename(path.with_name(f"z{9 - int(path.stem)}.txt"))
    synth(config(texts), tmp_path / "b")
    a, b = kept(tmp_path / "a"), kept(tmp_path / "b")
    assert [(e.id, e.instruction, e.response) for e in a] == [(e.id, e.instruction, e.response) for e in b]


@pytest.mark.parametrize("garbage", [0.0, 0.3, 0.7])
def test_a_target_is_met_exactly(texts, tmp_path, flaky, garbage):
    flaky.garbage = garbage
    c = config(texts, target=5, max_attempts=40, model=ModelConfig(ref="flaky:"))
    manifest = synth(c, tmp_path / "run")
    assert manifest["exit"]["code"] == 0
    assert {t: e["accepted"] for t, e in manifest["tasks"].items()} == {"exqa": 5, "ynqa": 5}
    assert_nothing_vanished(manifest)
    if garbage == 0:
        assert flaky.calls == 10, "a flawless model is asked no more than N times per type"


def test_a_target_out_of_reach_is_a_reasoned_shortfall(texts, tmp_path, flaky):
    flaky.garbage = 1.0
    c = config(texts, target=5, max_attempts=3, model=ModelConfig(ref="flaky:"))
    manifest = synth(c, tmp_path / "run")
    assert manifest["exit"]["code"] == 3
    assert "exqa 0 of 5 (all 18 candidates (passages x attempts) were tried)" in manifest["exit"]["reason"]
    assert_nothing_vanished(manifest)


def test_a_hopeless_yield_stops_early(texts, tmp_path, flaky):
    flaky.garbage = 1.0
    c = config(texts, target=5, max_attempts=1000, task=("exqa",), model=ModelConfig(ref="flaky:"))
    manifest = synth(c, tmp_path / "run")
    assert "below --min-yield" in manifest["tasks"]["exqa"]["shortfall"]
    assert flaky.calls < 2000


def test_what_holds_an_evaluation_item_does_not_count_towards_the_target(texts, tmp_path):
    c = config(texts, target=3, task=("exqa",))
    open_run = synth(replace(c, against=("none",)), tmp_path / "open")
    assert open_run["against"] == {}
    held_out = tmp_path / "held_out.jsonl"
    asked = [
        {"question": e.instruction.replace("{{context}}", ""), "answer": e.response}
        for e in kept(tmp_path / "open")
    ]
    held_out.write_text("\n".join(map(json.dumps, asked)))
    closed = replace(c, against=("shipped", str(held_out)))
    manifest = synth(closed, tmp_path / "closed")
    assert manifest["exit"]["code"] == 0
    assert_nothing_vanished(manifest)
    assert manifest["tasks"]["exqa"]["accepted"] == len(kept(tmp_path / "closed")) == 3
    assert {e.id for e in kept(tmp_path / "closed")}.isdisjoint(e.id for e in kept(tmp_path / "open"))
    reasons = manifest["funnel"]["curate"]["dropped"]
    assert reasons["contaminated"] >= 3
    assert set(reasons) <= {"contaminated", "duplicate"}  # echo says the same again
    assert manifest["tasks"]["exqa"]["dropped"] == reasons
    assert {"gsm8k", "mmlu", str(held_out)} < set(manifest["against"])
    lost = [
        r for p in parts(tmp_path / "closed" / "3-curate" / "dropped") for r in pq.read_table(p).to_pylist()
    ]
    lost = [r for r in lost if r["reason"] == "contaminated"]
    assert {r["detail"].split(": in ")[1] for r in lost} == {f"held_out/rows/{i}" for i in range(3)}
    assert {r["filter"] for r in lost} == {"decontaminate"}
    # The same again skips every stage; another set of items is another configuration.
    again = synth(closed, tmp_path / "closed")
    assert again["calls"]["made"] == 0
    with pytest.raises(UsageError, match="against"):
        synth(c, tmp_path / "closed")
    # Other items under the same name: the stages are made again from the calls that are paid.
    held_out.write_text(
        json.dumps({"question": "What did nobody in any of these passages ever come to ask?"})
    )
    changed = synth(closed, tmp_path / "closed")
    assert changed["calls"]["made"] == 0
    assert changed["funnel"]["curate"]["dropped"] == {}
    assert {e.id for e in kept(tmp_path / "closed")} == {e.id for e in kept(tmp_path / "open")}


def test_without_a_target_items_are_dropped_as_well(texts, tmp_path):
    synth(config(texts, task=("exqa",), against=("none",)), tmp_path / "open")
    one = kept(tmp_path / "open")[2]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"question": one.instruction, "answer": one.response}))
    manifest = synth(config(texts, task=("exqa",), against=(str(held_out),)), tmp_path / "run")
    assert manifest["funnel"]["curate"] == {"in": 6, "kept": 5, "dropped": {"contaminated": 1}}
    assert one.id not in {e.id for e in kept(tmp_path / "run")}


def test_evaluation_files_are_looked_at_before_anything_is_paid(texts, tmp_path, flaky):
    for names, error in ((("no-such.jsonl",), InputError), (("none", "mmlu"), UsageError)):
        with pytest.raises(error):
            synth(config(texts, model=ModelConfig(ref="flaky:"), against=names), tmp_path / "run")
    assert flaky.calls == 0
    assert not (tmp_path / "run").exists()


def test_raising_the_target_pays_only_for_the_difference(texts, tmp_path, flaky):
    c = config(texts, target=3, task=("exqa",), model=ModelConfig(ref="flaky:"))
    synth(c, tmp_path / "run")
    assert flaky.calls == 3
    manifest = synth(replace(c, target=5), tmp_path / "run")
    assert flaky.calls == 5
    assert manifest["tasks"]["exqa"]["accepted"] == 5


def test_a_met_target_is_done_whatever_failed_on_the_way(texts, tmp_path, flaky):
    flaky.errors = 0.4
    c = config(texts, target=3, max_attempts=40, model=ModelConfig(ref="flaky:"))
    assert synth(c, tmp_path / "run")["exit"]["code"] == 0
    calls = flaky.calls
    assert synth(c, tmp_path / "run")["exit"]["code"] == 0
    assert flaky.calls == calls


def test_an_interrupted_update_leaves_no_finished_later_stage(texts, tmp_path, monkeypatch):
    synth(config(texts, task=("qg",)), tmp_path / "run")

    def broken(self, requests):
        raise BackendError("down")
        yield

    monkeypatch.setattr(Echo, "generate", broken)
    with pytest.raises(BackendError):
        synth(config(texts, task=("ynqa",)), tmp_path / "run", update=True)
    assert not (tmp_path / "run" / "3-curate" / "stage.json").exists()
    with pytest.raises(RunFolderError):
        export_run(tmp_path / "run", tmp_path / "out.jsonl", "messages")


def test_failed_calls_are_rows_and_are_tried_again(texts, tmp_path, flaky):
    flaky.errors = 0.5
    c = config(texts, model=ModelConfig(ref="flaky:"))
    manifest = synth(c, tmp_path / "run")
    failed = manifest["calls"]["failed"]
    assert failed
    assert manifest["funnel"]["synthesize"]["dropped"]["call_failed"] == failed
    assert_nothing_vanished(manifest)
    assert manifest["exit"]["code"] == 3
    assert f"{failed} calls failed (most often: 503 from the server)" in manifest["exit"]["reason"]
    flaky.errors = 0.0
    flaky.calls = 0
    manifest = synth(c, tmp_path / "run")
    assert manifest["exit"] == {"code": 0, "reason": "done"}
    assert flaky.calls == failed
    assert "call_failed" not in manifest["funnel"]["synthesize"]["dropped"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (BudgetConfig(max_calls=5), "--max-calls 5"),
        (BudgetConfig(max_tokens=300), "--max-tokens 300"),
        (BudgetConfig(max_time=1e-9), "--max-time"),
    ],
)
def test_a_budget_stops_and_the_rest_is_paid_later(texts, tmp_path, flaky, limits, words):
    c = config(texts, model=ModelConfig(ref="flaky:"))
    manifest = synth(replace(c, budget=limits), tmp_path / "run")
    assert manifest["exit"]["code"] == 3
    assert words in manifest["exit"]["reason"]
    assert_nothing_vanished(manifest)
    first = flaky.calls
    assert first < 12
    if limits.max_calls:
        assert first == 5
        assert synth(replace(c, budget=limits), tmp_path / "run")["exit"]["code"] == 3
        assert flaky.calls == 5, "the limit counts what earlier sessions spent"
    manifest = synth(c, tmp_path / "run")
    assert (manifest["exit"]["code"], flaky.calls) == (0, 12)
    undisturbed = synth(c, tmp_path / "other")
    assert undisturbed["funnel"] == manifest["funnel"]
    assert kept(tmp_path / "run") == kept(tmp_path / "other")


def test_a_cost_limit_needs_a_price(texts, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("'echo:': {prompt: 1000, completion: 2000}\n")
    with pytest.raises(ConfigError, match="--prices"):
        synth(config(texts, budget=BudgetConfig(max_cost=1)), tmp_path / "a")
    manifest = synth(config(texts, budget=BudgetConfig(max_cost=0.2, prices=str(prices))), tmp_path / "b")
    assert manifest["exit"]["code"] == 3
    tokens = manifest["tokens"]
    assert manifest["cost"] == pytest.approx((tokens["prompt"] * 1000 + tokens["completion"] * 2000) / 1e6)
    prices.write_text("other: {prompt: 1, completion: 2}\n")
    with pytest.raises(ConfigError, match="has no entry 'echo:"):
        synth(config(texts, budget=BudgetConfig(prices=str(prices))), tmp_path / "c")


def test_a_changed_configuration_is_refused_with_the_difference(texts, tmp_path):
    synth(config(texts), tmp_path / "run")
    with pytest.raises(UsageError, match="seed: 0 → 1"):
        synth(config(texts, seed=1), tmp_path / "run")
    manifest = synth(config(texts, seed=1), tmp_path / "run", update=True)
    assert manifest["seed"] == 1


def test_a_ledger_is_shared_between_runs(texts, tmp_path, flaky):
    c = config(texts, ledger=str(tmp_path / "ledger"), model=ModelConfig(ref="flaky:"))
    synth(c, tmp_path / "a")
    manifest = synth(c, tmp_path / "b")
    assert flaky.calls == 12
    assert manifest["calls"] == {"made": 0, "reused": 12, "failed": 0, "total": 0}


def test_equal_documents_are_dropped_once_each(texts, tmp_path):
    (texts / "again.txt").write_text((texts / "0.txt").read_text())
    manifest = synth(config(texts), tmp_path / "run")
    assert manifest["funnel"]["ingest"] == {"in": 7, "kept": 6, "dropped": {"duplicate": 1}}


def test_equal_examples_are_dropped(texts, tmp_path):
    manifest = synth(config(texts, per_passage=3, task=("exqa",)), tmp_path / "run")
    ids = [e.id for e in kept(tmp_path / "run")]
    assert len(ids) == len(set(ids))
    assert manifest["funnel"]["synthesize"]["kept"] == 18
    assert manifest["funnel"]["curate"]["dropped"].get("duplicate", 0) == 18 - len(ids)


def test_both_protocols(texts, tmp_path):
    for protocol in ("chat", "bonito"):
        c = config(texts, model=ModelConfig(ref="echo:", protocol=protocol))
        assert synth(c, tmp_path / protocol)["funnel"]["curate"]["kept"] == 12


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sources": ()}, UsageError, "no source"),
        ({"sources": ("no/such/place",)}, InputError, "no/such/place"),
        ({"task": ("exqaa",)}, UnknownName, "Did you mean 'exqa'"),
        ({"model": ModelConfig(ref="gpt-4")}, UsageError, "names no backend"),
        ({"model": ModelConfig(ref="opnai:gpt-4")}, UnknownName, "Did you mean 'openai'"),
        ({"model": ModelConfig(ref="openvino:nothing")}, BackendError, "nothing"),
        ({"labels": {"sentiment": ("a", "b")}}, ConfigError, "--task does not name"),
        ({"labels": {"exqa": ("a", "b")}}, ConfigError, "has no labels"),
        ({"labels": {"ynqa": ("a",)}}, ConfigError, "at least two different labels"),
        ({"ledger": "memory://me:secret@x"}, UsageError, "password or key"),
        ({"sources": ("https://h/x.txt?token=secret",)}, UsageError, "password or key"),
        ({"model": ModelConfig(ref="echo:", api_key_env="sk-live-x")}, UsageError, "NAME of an environment"),
        ({"count": 2, "model": ModelConfig(ref="echo:", protocol="bonito")}, ConfigError, "use chat"),
        ({"budget": BudgetConfig(max_cost=1)}, ConfigError, "--prices"),
        ({"per_passage": 0}, ConfigError, "1 or more"),
        ({"runner": "spark"}, UsageError, "runner 'spark'"),
    ],
)
def test_what_cannot_work_is_refused_first(texts, tmp_path, changes, error, words):
    with pytest.raises(error) as raised:
        synth(config(texts, **changes), tmp_path / "run")
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    if (tmp_path / "run" / "manifest.json").exists():
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        assert manifest["exit"]["code"] == error.exit_code
        assert manifest["status"] == "stopped"
