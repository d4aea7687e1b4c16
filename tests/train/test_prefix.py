"""Rows share a beginning with models that heed a mask and positions, and with no others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from taskmill import durable
from taskmill.console import show_training
from taskmill.errors import ConfigError
from taskmill.report.training import write_training_report
from taskmill.train import TrainConfig, TrainRow, train
from taskmill.train.encode import Encoded
from taskmill.train.loss import Supervised
from taskmill.train.prefix import TOLERANCE, difference, forbidden, lay_out
from taskmill.train.tree import Tree, pad, trees

SETTINGS = {"rank": 4, "batch_tokens": 400, "micro_tokens": 300, "lr": 5e-3, "precision": "fp32"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 80}
HEADS = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
WINDOW = 8  # tokens; the rows below have 44 or more

FAMILIES = {
    "llama": ("LlamaConfig", SIZES | HEADS),
    "wide mistral": ("MistralConfig", SIZES | HEADS | {"sliding_window": 4096}),
    "mistral": ("MistralConfig", SIZES | HEADS | {"sliding_window": WINDOW}),
    "gemma3": ("Gemma3TextConfig", SIZES | HEADS | {"sliding_window": WINDOW, "head_dim": 8}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]],
         "window_size": WINDOW, "num_heads": 4, "vocab_size": 80},
    ),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 80}),
    "mamba": ("MambaConfig", SIZES | {"state_size": 4}),
    "rwkv": ("RwkvConfig", SIZES),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        SIZES | {"num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 3,
                 "attention_window_size": 512},
    ),
}  # fmt: skip
PLAIN = ("llama", "wide mistral")
OTHERS = [name for name in FAMILIES if name not in PLAIN]


def built(name):
    """Return a randomly initialised model of a family, spread far enough that logits differ."""
    import torch
    import transformers

    kind, settings = FAMILIES[name]
    config = getattr(transformers, kind)(initializer_range=0.3, **settings)
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def rows(families=4):
    """Return rows of several passages, three tasks each."""
    draw = np.random.default_rng(3)
    found = []
    for i in range(families):
        passage = draw.integers(5, 60, 30 + 5 * i)
        for _ in range(3):
            task, answer = draw.integers(5, 60, 6), draw.integers(5, 60, 8)
            ids = np.concatenate([passage, task, answer]).astype(np.uint32)
            found.append(Encoded(ids, len(passage) + 6, group=str(i)))
    return found


def laid_out(model, asked="shared", longest=200, kind="fp32", own=None):
    import torch

    supervised = Supervised(model, model.get_output_embeddings(), torch)
    return lay_out(rows() if own is None else own, [], model, supervised, asked, longest, kind)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_share_a_beginning_only_where_the_loss_stays_theirs(needs_train, name):
    import torch

    model = built(name)
    layout = laid_out(model)
    assert layout.prefix == ("shared" if name in PLAIN else "own"), layout.why
    supervised = Supervised(model, model.get_output_embeddings(), torch)
    plain = 0.0
    for row in rows():
        ids = torch.tensor([row.ids.tolist()])
        labels = ids.clone()
        labels[0, : row.start] = -100
        with torch.no_grad():
            plain += model(input_ids=ids, labels=labels).loss.item() * row.supervised
    with torch.no_grad():
        found = supervised.loss(pad(layout.rows, torch, "cpu")).item()
    assert found == pytest.approx(plain, rel=1e-4)
    assert sorted(len(r.ids) for t in layout.rows for r in t.rows) == sorted(len(r.ids) for r in rows())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_rule_and_trial_each_find_what_cannot_share(needs_train, name, monkeypatch):
    """The rule knows these families; without it, the trial on the loaded model tells them, too."""
    model = built(name)
    assert laid_out(model).why == forbidden(model, 59)  # 45 of the longest passage, 6 and 8
    monkeypatch.setattr("taskmill.train.prefix.forbidden", lambda model, longest: "")
    layout = laid_out(model)
    assert layout.prefix == "own"
    assert "differ" in layout.why or "takes no rows" in layout.why


def test_a_window_matters_only_to_rows_that_are_longer(needs_train):
    model = built("mistral")
    assert forbidden(model, WINDOW) == ""
    why = forbidden(model, WINDOW + 1)
    assert why == "mistral looks 8 tokens back (sliding_window), and rows have up to 9"
    model.config.use_sliding_window = False
    assert forbidden(model, 1000) == ""


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_the_tolerance_lies_between_rounding_and_leaking(needs_train, kind):
    import torch

    model = built("llama").to(torch.bfloat16 if kind == "bf16" else torch.float32)
    supervised = Supervised(model, model.get_output_embeddings(), torch)
    (tree,) = trees(rows(1), 200)
    assert 10 * difference(supervised, tree, "cpu") < TOLERANCE[kind]
    # A row that does not begin as the tree says is another row.
    first, second, _ = tree.rows
    wrong = Tree((first, Encoded(second.ids[::-1].copy(), second.start)), tree.shared)
    assert difference(supervised, wrong, "cpu") > 3 * TOLERANCE[kind]


def test_what_was_asked_and_what_there_is_to_share_are_said(needs_train):
    model = built("llama")
    assert (laid_out(model, "own").prefix, laid_out(model, "own").why) == ("own", "as asked")
    lonely = [row for i, row in enumerate(rows()) if i % 3 == 0]
    alone = laid_out(model, own=lonely)
    assert (alone.prefix, alone.why) == ("shared", "no rows begin alike")
    assert [len(tree.rows) for tree in alone.rows] == [1] * len(lonely)
    assert "differ from its rows' by" in laid_out(model).why


def saved(name, folder, path):
    """Save a model of a family with the tiny Llama's tokenizer."""
    import transformers

    built(name).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def windowed(folder, tmp_path_factory):
    return saved("mistral", folder, tmp_path_factory.mktemp("windowed") / "mistral")


@pytest.mark.filterwarnings("ignore")
def test_a_recurrent_model_is_trained_whole_and_takes_no_adapter(folder, tmp_path):
    base = saved("mamba", folder, tmp_path / "mamba")
    with pytest.raises(ConfigError, match=r"method lora does not suit mamba: .*; take full"):
        train(tiny.rows(8), TrainConfig(base=str(base), **SETTINGS), tmp_path / "lora")
    record = train(tiny.rows(8), TrainConfig(base=str(base), method="full", **SETTINGS), tmp_path / "full")
    assert record["prefix"] == {"used": "own", "why": "mamba is recurrent"}


def test_a_run_on_a_windowed_model_is_that_of_single_rows_and_says_so(windowed, tmp_path, capsys):
    shared, own = (
        train(tiny.rows(40), TrainConfig(base=str(windowed), prefix=p, **SETTINGS), tmp_path / p)
        for p in ("shared", "own")
    )
    assert shared["weights"] == own["weights"]
    assert shared["recipe"]["prefix"] == "shared"
    assert shared["prefix"]["used"] == own["prefix"]["used"] == "own"
    assert "mistral looks 8 tokens back" in shared["prefix"]["why"]
    assert shared["counts"]["read"] == shared["counts"]["tokens"]
    page = write_training_report(tmp_path / "shared").read_text()
    assert "own: mistral looks 8 tokens back" in page
    show_training(shared, tmp_path / "shared")
    assert "one by one: mistral looks 8 tokens back" in capsys.readouterr().out
    show_training(own, tmp_path / "own")
    assert "one by one" not in capsys.readouterr().out


def test_a_run_on_llama_shares(folder, tmp_path):
    head = "qa\n" + 30 * "river "
    long = [TrainRow(r.prompt.replace("qa\n", head), r.completion, r.passage, r.group) for r in tiny.rows(24)]
    record = train(long, TrainConfig(base=str(folder), **SETTINGS), tmp_path)
    assert record["prefix"]["used"] == "shared"
    assert record["counts"]["read"] < 0.7 * record["counts"]["tokens"]


def test_a_checkpoint_of_the_other_layout_is_refused(folder, tmp_path):
    def stop(name):
        if name == "checkpoint 2 renamed":
            raise KeyboardInterrupt

    config = TrainConfig(base=str(folder), checkpoint_minutes=0.0, **SETTINGS)
    durable.on_write(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tiny.rows(40), config, tmp_path)
    finally:
        durable.on_write(None)
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    kept = json.loads(state.read_text())
    other = {"shared": "own", "own": "shared"}[kept["prefix"]]
    state.write_text(json.dumps(kept | {"prefix": other}))
    with pytest.raises(ConfigError, match=f"made with prefix {other}, now {kept['prefix']} is in force"):
        train(tiny.rows(40), config, tmp_path)
