"""A LoRA adapter merged into a GGUF model: a tiny llama and random adapters, made here."""

from __future__ import annotations

import errno
import json
import logging
import struct
import threading

import numpy as np
import pytest

from taskmill.backends import merge
from taskmill.backends.lora import read_adapter
from taskmill.backends.merge import made_of, merged_model
from taskmill.durable import cache_folder, on_write
from taskmill.errors import BackendError

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

WIDTH, HEADS, KV_HEADS, HEAD, INNER, LAYERS, RANK = 64, 4, 2, 16, 96, 2, 4
SHAPES = {
    "self_attn.q_proj": ("attn_q", HEADS * HEAD, WIDTH),
    "self_attn.k_proj": ("attn_k", KV_HEADS * HEAD, WIDTH),
    "self_attn.v_proj": ("attn_v", KV_HEADS * HEAD, WIDTH),
    "self_attn.o_proj": ("attn_output", WIDTH, HEADS * HEAD),
    "mlp.gate_proj": ("ffn_gate", INNER, WIDTH),
    "mlp.up_proj": ("ffn_up", INNER, WIDTH),
    "mlp.down_proj": ("ffn_down", WIDTH, INNER),
}
"""PEFT's name → (GGUF's name, out, in)."""


def write_base(path, architecture="llama", seed=0):
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(50)
    writer.add_file_type(3)
    writer.add_array("test.words", ["a", "é", "<|x|>"])
    kind = gguf.GGMLQuantizationType.Q4_1

    def add(name, *shape):
        values = rng.normal(size=shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", 50, WIDTH)
    for layer in range(LAYERS):
        for name, high, wide in SHAPES.values():
            add(f"blk.{layer}.{name}.weight", high, wide)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def bfloat16(values):
    return (values.view("<u4") >> 16).astype("<u2")


def write_tensors(folder, tensors, dtype="float32"):
    header, data = {}, b""
    for name, tensor in tensors.items():
        piece = encode(tensor, dtype)
        short = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]
        where = [len(data), len(data) + len(piece)]
        header[name] = {"dtype": short, "shape": list(tensor.shape), "data_offsets": where}
        data += piece
    head = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)


def encode(values, dtype):
    if dtype == "bfloat16":
        return bfloat16(values).tobytes()
    return values.astype({"float16": "<f2", "float32": "<f4"}[dtype]).tobytes()


def random_tensors(modules=tuple(SHAPES), layers=range(LAYERS), seed=1):
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        for module in modules:
            _, high, wide = SHAPES[module]
            stem = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_A.weight"] = rng.normal(size=(RANK, wide)).astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = rng.normal(size=(high, RANK)).astype(np.float32)
    return tensors


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "merged"


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "tiny.gguf")


@pytest.fixture
def adapter(tmp_path, base):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", "use_rslora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    record = {"base": {"name": "tiny", "sha256": merge._sha256(base)}}
    (folder / "taskmill.json").write_text(json.dumps(record))
    write_tensors(folder, random_tensors())
    return folder


def tensors_of(path):
    return {t.name: t for t in gguf.GGUFReader(str(path)).tensors}


def weights(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def half_a_step(values):
    """The largest rounding error of Q8_0: half a step of each block of 32, and its scale in float16."""
    top = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    return np.repeat(top / 254 * 1.1, 32, axis=1).reshape(values.shape) + 1e-6


def interleaved(rows, head):
    """Row of a GGUF llama → row of a transformers llama, spelt out."""
    return [
        h + half * head // 2 + i for h in range(0, rows, head) for i in range(head // 2) for half in (0, 1)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_matrix_gets_its_product_in_the_row_order_of_the_file(base, adapter, dtype):
    learnt = random_tensors()
    write_tensors(adapter, learnt, dtype)
    old, new = tensors_of(base), tensors_of(merged_model(base, adapter))
    assert list(old) == list(new)
    for layer in range(LAYERS):
        for module, (name, high, _) in SHAPES.items():
            stem = f"base_model.model.model.layers.{layer}.{module}"
            a, b = learnt[f"{stem}.lora_A.weight"], learnt[f"{stem}.lora_B.weight"]
            if dtype == "float16":
                a, b = (x.astype("<f2").astype("<f4") for x in (a, b))
            if dtype == "bfloat16":
                a, b = ((bfloat16(x).astype("<u4") << 16).view("<f4") for x in (a, b))
            added = 8 / RANK * b @ a
            if name in ("attn_q", "attn_k"):
                added = added[interleaved(high, HEAD)]
            tensor = f"blk.{layer}.{name}.weight"
            wanted = weights(old[tensor]) + added
            assert new[tensor].tensor_type.name == "Q8_0"
            assert (np.abs(weights(new[tensor]) - wanted) <= half_a_step(wanted)).all(), tensor


def test_what_the_adapter_leaves_alone_keeps_its_bytes(base, adapter):
    write_tensors(adapter, random_tensors(("mlp.up_proj",), layers=[1]))
    model = merged_model(base, adapter)
    old, new = tensors_of(base), tensors_of(model)
    same = [name for name in old if old[name].data.tobytes() == new[name].data.tobytes()]
    assert set(old) - set(same) == {"blk.1.ffn_up.weight"}
    a, b = (gguf.GGUFReader(str(p)).fields for p in (base, model))
    differing = [k for k in a if a[k].contents() != b[k].contents()]
    assert differing == ["general.file_type"]
    assert b["general.file_type"].contents() == 7


def test_rank_stabilised_adapters_have_their_own_scale(adapter):
    plain = read_adapter(adapter)
    change(adapter, "adapter_config.json", use_rslora=True)
    stable = read_adapter(adapter)
    assert {p.scale for p in plain.pairs.values()} == {8 / RANK}
    assert {p.scale for p in stable.pairs.values()} == {8 / RANK**0.5}
    assert plain.sha256 != stable.sha256


def test_merged_once_and_named_for_both(base, adapter, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    model = merged_model(base, adapter)
    assert "once for this machine" in caplog.text
    assert made_of(model) == f"{merge._sha256(base)[:12]}+{read_adapter(adapter).sha256[:12]}.{merge.FORMAT}"
    monkeypatch.setattr(merge, "_merge", None)
    assert merged_model(base, adapter) == model
    monkeypatch.undo()
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(model.parents[1]))
    write_tensors(adapter, random_tensors(seed=2))
    assert merged_model(base, adapter) != model


def test_a_cut_or_unmarked_file_is_made_again(base, adapter):
    model = merged_model(base, adapter)
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    assert merged_model(base, adapter).read_bytes() == whole
    model.with_suffix(".json").unlink()
    model.write_bytes(bytes(len(whole)))
    assert merged_model(base, adapter).read_bytes() == whole
    model.with_suffix(".json").write_text("{")
    assert merged_model(base, adapter).read_bytes() == whole


def test_a_crash_at_any_write_point_leaves_nothing_that_is_taken_for_whole(base, adapter, cache):
    points = []
    on_write(points.append)
    try:
        whole = merged_model(base, adapter).read_bytes()
        for at in range(len(points)):
            for file in cache.iterdir():
                file.unlink()
            left = iter(range(at + 1))

            def crash(name, left=left, at=at):
                if next(left) == at:
                    raise KeyboardInterrupt(name)

            on_write(crash)
            with pytest.raises(KeyboardInterrupt):
                merged_model(base, adapter)
            on_write(None)
            assert merged_model(base, adapter).read_bytes() == whole
    finally:
        on_write(None)
    assert len(points) == 8  # four for the model, four for its marker


def test_a_full_disk_is_said_before_and_during_the_write(base, adapter, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(merge.shutil, "disk_usage", lambda path: _Free())
        with pytest.raises(BackendError, match=r"0 MB free; set TASKMILL_CACHE_DIR"):
            merged_model(base, adapter)

    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    on_write(full)
    try:
        with pytest.raises(BackendError, match="No space left on device; set TASKMILL_CACHE_DIR"):
            merged_model(base, adapter)
    finally:
        on_write(None)
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


class _Free:
    free = 0


def test_a_cache_that_cannot_be_a_folder(base, adapter, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(BackendError, match="set TASKMILL_CACHE_DIR"):
        merged_model(base, adapter)


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TASKMILL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "taskmill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "taskmill"


def test_two_at_once_write_once(base, adapter, monkeypatch):
    real, calls, found = merge._merge, [], []
    monkeypatch.setattr(merge, "_merge", lambda *args: (calls.append(1), real(*args)))
    threads = [threading.Thread(target=lambda: found.append(merged_model(base, adapter))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4
    assert len(set(found)) == 1


def test_another_base_is_refused_with_both_hashes(base, adapter, tmp_path):
    other = write_base(tmp_path / "other.gguf", seed=9)
    with pytest.raises(BackendError) as caught:
        merged_model(other, adapter)
    for part in (merge._sha256(base)[:12], merge._sha256(other)[:12], "tiny", "train it again"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("init_lora_weights", "pissa"),
        ("trainable_token_indices", [1]),
        ("peft_type", "LOHA"),
        ("lora_bias", True),
    ],
)
def test_other_variants_are_refused_by_name(base, adapter, key, value):
    change(adapter, "adapter_config.json", **{key: value})
    with pytest.raises(BackendError, match=key):
        merged_model(base, adapter)


STEM = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "holds no tensors"),
        ({f"{STEM}.lora_A.weight": np.ones((RANK, WIDTH), np.float32)}, "only its half A"),
        (
            {f"{STEM}.lora_magnitude_vector": np.ones(WIDTH, np.float32)},
            "lora_magnitude_vector is no LoRA half",
        ),
        (
            {"base_model.model.lm_head.weight": np.ones((50, WIDTH), np.float32)},
            "lm_head.weight is no LoRA half",
        ),
        (
            {
                f"{STEM}.lora_A.weight": np.full((RANK, WIDTH), np.nan, np.float32),
                f"{STEM}.lora_B.weight": np.ones((WIDTH, RANK), np.float32),
            },
            "not finite",
        ),
        (
            {
                f"{STEM}.lora_A.weight": np.ones((2, WIDTH), np.float32),
                f"{STEM}.lora_B.weight": np.ones((WIDTH, 2), np.float32),
            },
            "not of rank 4",
        ),
        (
            {
                f"{STEM}.lora_A.weight": np.ones((RANK, 32), np.float32),
                f"{STEM}.lora_B.weight": np.ones((WIDTH, RANK), np.float32),
            },
            "64 × 32 weights to 64 × 64 of tiny.gguf",
        ),
        (
            {
                f"{STEM.replace('.0.', '.7.')}.lora_A.weight": np.ones((RANK, WIDTH), np.float32),
                f"{STEM.replace('.0.', '.7.')}.lora_B.weight": np.ones((WIDTH, RANK), np.float32),
            },
            "blk.7.attn_q.weight has no counterpart",
        ),
    ],
)
def test_tensors_that_do_not_fit(base, adapter, cache, tensors, said):
    write_tensors(adapter, tensors)
    with pytest.raises(BackendError, match=said):
        merged_model(base, adapter)
    assert not list(cache.glob("*.gguf")) if cache.exists() else True


def test_damaged_folders_name_the_file(base, adapter):
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:100], b"", struct.pack("<Q", 1 << 60) + whole[8:]):
        path.write_bytes(broken)
        with pytest.raises(BackendError, match=r"adapter_model\.safetensors is no whole safetensors"):
            merged_model(base, adapter)
    path.write_bytes(whole)
    change(adapter, "adapter_config.json", r=0)
    with pytest.raises(BackendError, match="no usable r"):
        merged_model(base, adapter)
    change(adapter, "adapter_config.json", r=RANK)
    change(adapter, "taskmill.json", base="smollm2")
    with pytest.raises(BackendError, match=r"taskmill\.json does not say which model"):
        merged_model(base, adapter)
    (adapter / "taskmill.json").write_text("[]")
    with pytest.raises(BackendError, match=r"taskmill\.json is damaged"):
        merged_model(base, adapter)
    (adapter / "taskmill.json").write_text(json.dumps({"base": {"name": "x", "sha256": "0"}}))
    for file in ("adapter_model.safetensors", "taskmill.json", "adapter_config.json"):
        (adapter / file).unlink()
        with pytest.raises(BackendError, match=rf"{file} cannot be read"):
            read_adapter(adapter)


def test_only_llama_files_take_an_adapter(adapter, tmp_path):
    other = write_base(tmp_path / "other.gguf", architecture="qwen2")
    change(adapter, "taskmill.json", base={"name": "q", "sha256": merge._sha256(other)})
    with pytest.raises(BackendError, match="'qwen2'"):
        merged_model(other, adapter)
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    change(adapter, "taskmill.json", base={"name": "t", "sha256": merge._sha256(text)})
    with pytest.raises(BackendError, match="no readable GGUF"):
        merged_model(text, adapter)


@pytest.mark.filterwarnings("ignore")  # of transformers and peft, about themselves
def test_peft_merges_to_the_same_weights(base, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")

    def loaded(path):
        return hf.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
        )

    torch.manual_seed(3)
    targets = [module.split(".")[1] for module in SHAPES]
    model = peft.get_peft_model(
        loaded(base), peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    folder = tmp_path / "peft"
    model.save_pretrained(folder)
    (folder / "taskmill.json").write_text(json.dumps({"base": {"name": "t", "sha256": merge._sha256(base)}}))
    ours = dict(loaded(merged_model(base, folder)).named_parameters())
    theirs = dict(model.merge_and_unload().named_parameters())
    assert ours.keys() == theirs.keys()
    adapted = [name for name in theirs if name.split(".")[-2] in targets]
    assert len(adapted) == LAYERS * len(SHAPES)
    for name in theirs:
        a, b = ours[name].detach().numpy(), theirs[name].detach().numpy()
        if name in adapted:
            assert (np.abs(a - b) <= half_a_step(b)).all(), name
        else:
            np.testing.assert_array_equal(a, b)
