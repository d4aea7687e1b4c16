"""A whole run on the tiny model: what comes out, what is recorded, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import tiny

from taskmill import durable
from taskmill.errors import BackendError, ConfigError, InputError, RunFolderError
from taskmill.record import Document
from taskmill.train import TrainConfig, TrainRow, tapt_rows, train
from taskmill.train.folder import locked
from taskmill.train.loop import prepare

SETTINGS = {"rank": 4, "batch_tokens": 400, "micro_tokens": 300, "lr": 5e-3, "precision": "fp32"}


def config(folder, **settings):
    return TrainConfig(base=str(folder), **(SETTINGS | settings))


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    seen = []
    record = train(tiny.rows(120), config(folder, epochs=4.0), out, lambda *where: seen.append(where))
    return out, record, seen


def adapted(folder, adapter):
    import peft
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, adapter)


def plain_loss(model, rows):
    import torch

    total = 0.0
    for row in rows:
        ids = torch.tensor([row.ids.tolist()])
        labels = ids.clone()
        labels[0, : row.start] = -100
        with torch.no_grad():
            total += model(input_ids=ids, labels=labels).loss.item() * row.supervised
    return total / sum(row.supervised for row in rows)


def test_the_loss_falls_and_progress_is_told(done):
    _, record, seen = done
    losses = record["loss"]
    assert losses["valid_last"] < losses["valid_first"] - 0.2
    assert losses["train_last_tenth"] < losses["train_first"] - 0.2
    assert [step for step, *_ in seen] == list(range(1, record["steps"] + 1))
    assert {total for _, total, *_ in seen} == {record["steps"]}
    assert seen[-1][4] == 0


def test_peft_loads_the_adapter_and_it_has_the_loss_that_is_recorded(done, folder, tokenizer):
    out, record, _ = done
    data = prepare(tiny.rows(120), config(folder, epochs=4.0).resolved(), tokenizer)
    # The adapter is stored in bf16: 8 bits of mantissa.
    assert plain_loss(adapted(folder, out / "adapter"), data.valid) == pytest.approx(
        record["loss"]["valid_last"], rel=2e-3
    )


def test_the_adapters_files_are_small_neutral_and_complete(done, folder):
    from safetensors.torch import load_file

    out, record, _ = done
    adapter = out / "adapter"
    assert {p.name for p in adapter.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "taskmill.json",
    }  # fmt: skip
    weights = load_file(adapter / "adapter_model.safetensors")
    assert len(weights) == 28
    assert {str(w.dtype) for w in weights.values()} == {"torch.bfloat16"}
    saved = json.loads((adapter / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == "tiny"
    assert saved["target_modules"] == sorted(saved["target_modules"])
    assert (saved["r"], saved["lora_alpha"]) == (4, 32.0)
    for name in ("adapter_config.json", "taskmill.json"):
        assert str(folder.parent) not in (adapter / name).read_text()
    assert record["base"]["identity"].startswith("tiny@")
    assert len(record["weights"]["adapter_model.safetensors"]) == 64
    counts = record["counts"]
    assert counts["rows"] == counts["train"] + counts["valid"] == 120
    assert counts["valid"] >= 8
    assert 0 < counts["supervised"] < counts["tokens"]
    assert record["tokens"] == 4 * counts["read"] < 4 * counts["tokens"]
    assert record["prefix"]["used"] == "shared"


def test_the_log_has_a_line_for_every_step(done):
    out, record, _ = done
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(record["steps"] + 1))
    assert all({"tokens", "loss", "lr", "tokens_per_s", "elapsed_s"} <= set(line) for line in lines[1:])
    assert sum("valid_loss" in line for line in lines) == 9


def test_a_finished_run_is_not_done_again(done, folder):
    out, record, _ = done
    told = []
    assert train(tiny.rows(120), config(folder, epochs=4.0), out, lambda *where: told.append(where)) == record
    assert told == []


@pytest.mark.parametrize(
    ("rows", "settings", "difference"),
    [
        (120, {"lr": 1e-3}, r"config.lr: 0.005 → 0.001"),
        (120, {"seed": 1}, r"config.seed: 0 → 1"),
        (116, {}, r"data.rows: 120 → 116"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(done, folder, rows, settings, difference):
    with pytest.raises(ConfigError, match=difference):
        train(tiny.rows(rows), config(folder, epochs=4.0, **settings), done[0])


def test_another_base_in_the_same_folder_is_refused(done, tmp_path):
    other = tiny.make(tmp_path / "tiny", seed=1)
    with pytest.raises(ConfigError, match=r"base.identity: 'tiny@\w+' → 'tiny@\w+'"):
        train(tiny.rows(120), config(other, epochs=4.0), done[0])


def test_results_of_unknown_origin_are_not_written_over(done, folder, tmp_path):
    shutil.copytree(done[0] / "adapter", tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"holds adapter/ but no run.json"):
        train(tiny.rows(8), config(folder), tmp_path)


def test_two_runs_in_one_folder_are_refused(folder, tmp_path):
    with locked(tmp_path), pytest.raises(RunFolderError, match="in use"):
        train(tiny.rows(8), config(folder), tmp_path)


def stopped(folder, out, at="checkpoint 3 renamed", **settings):
    """Run until a write point, as if killed there."""

    def stop(name):
        if name == at:
            raise KeyboardInterrupt

    durable.on_write(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tiny.rows(60), config(folder, checkpoint_minutes=0.0, **settings), out)
    finally:
        durable.on_write(None)


def test_at_most_two_checkpoints_are_kept_and_parts_of_one_are_not_taken(folder, tmp_path):
    stopped(folder, tmp_path)
    checkpoints = tmp_path / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == [
        "step-00000001",
        "step-00000002",
        "step-00000003",
    ]
    part = checkpoints / ".step-00000099.tmp"
    part.mkdir()
    (part / "weights.safetensors").write_bytes(b"half")
    begun = []
    train(
        tiny.rows(60), config(folder, checkpoint_minutes=0.0), tmp_path, lambda step, *_: begun.append(step)
    )
    assert begun[0] == 4


def test_a_damaged_checkpoint_is_named_with_the_way_out(folder, tmp_path):
    stopped(folder, tmp_path)
    damaged = tmp_path / "checkpoints" / "step-00000003"
    file = damaged / "optimiser.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"step-00000003 is damaged .* remove its folder"):
        train(tiny.rows(60), config(folder), tmp_path)
    shutil.rmtree(damaged)
    begun = []
    train(tiny.rows(60), config(folder), tmp_path, lambda step, *_: begun.append(step))
    assert begun[0] == 3


def test_a_checkpoint_of_another_rank_is_refused(folder, tmp_path):
    stopped(folder, tmp_path / "a")
    stopped(folder, tmp_path / "b", rank=8)
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    shutil.copytree(tmp_path / "b" / "checkpoints", tmp_path / "a" / "checkpoints")
    with pytest.raises(ConfigError, match="another model or rank"):
        train(tiny.rows(60), config(folder), tmp_path / "a")


def test_the_whole_model_can_be_trained(folder, tmp_path):
    import transformers

    record = train(tiny.rows(60), config(folder, method="full", lr=1e-3, epochs=3.0), tmp_path)
    assert record["loss"]["train_last_tenth"] < record["loss"]["train_first"]
    assert not (tmp_path / "adapter").exists()
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("river")["input_ids"]
    assert sum(p.numel() for p in model.parameters()) > 10_000
    assert str(folder.parent) not in (tmp_path / "model" / "config.json").read_text()


def test_plain_text_is_learned_on_every_token(folder, tokenizer, tmp_path):
    documents = [Document(str(i), "the river walks over the stone. " * 9) for i in range(20)]
    rows = list(tapt_rows(documents, 96, tokenizer))
    record = train(rows, config(folder, epochs=6.0), tmp_path)
    counts = record["counts"]
    # All but the first token of each chunk.
    assert counts["supervised"] == counts["tokens"] - counts["train"]
    assert record["loss"]["valid_last"] < record["loss"]["valid_first"] - 0.3


def test_gradient_checkpointing_changes_no_weight(folder, tmp_path):
    plain = train(tiny.rows(40), config(folder), tmp_path / "a")
    saving = train(tiny.rows(40), config(folder, gradient_checkpointing=True), tmp_path / "b")
    assert saving["weights"] == plain["weights"]


def test_a_base_in_bf16_learns_too(folder, tmp_path):
    record = train(tiny.rows(60), config(folder, precision="bf16"), tmp_path)
    assert record["precision"] == "bf16"
    assert record["prefix"]["used"] == "shared"
    assert record["loss"]["train_last_tenth"] < record["loss"]["train_first"]


def test_the_callers_random_state_is_left_alone(folder, tmp_path):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(tiny.rows(8), config(folder, dropout=0.1), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_over_long_rows_are_cut_or_refused_and_counted(folder, tmp_path):
    long = "the river " * 20
    rows = [
        *tiny.rows(20),
        TrainRow(f"read\n{long}\nask\n", "yes", long, "long"),
        TrainRow("river " * 40, "no"),
    ]
    counts = train(rows, config(folder, max_length=200), tmp_path)["counts"]
    assert (counts["cut"], counts["refused"]) == (1, 1)
    assert counts["refusals"] == [{"row": 21, "why": "243 tokens do not fit 200 even without the passage"}]
    assert counts["train"] + counts["valid"] == 21


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"method": "qlora"}, ConfigError, "needs a CUDA GPU"),
        ({"base": "./nowhere"}, ConfigError, "there is no ./nowhere"),
        ({"base": "nowhere.gguf"}, ConfigError, "there is no nowhere.gguf"),
        ({"lr": 1e30}, BackendError, "take a lower lr"),
    ],
)
def test_what_cannot_run_says_why(folder, tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        train(
            tiny.rows(30),
            TrainConfig(**({"base": str(folder), "epochs": 5.0} | SETTINGS | settings)),
            tmp_path,
        )


def test_no_rows_and_only_refused_rows_are_errors(folder, tmp_path):
    with pytest.raises(InputError, match=r"no row to train on \(0 given\)"):
        train([], config(folder), tmp_path)
    with pytest.raises(InputError, match=r"1 given: the completion is empty"):
        train([TrainRow("a", "")], config(folder), tmp_path)


def test_a_folder_that_is_no_model_is_a_backend_error(needs_train, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(BackendError, match="cannot be loaded"):
        train(tiny.rows(8), config(tmp_path / "model"), tmp_path / "out")
