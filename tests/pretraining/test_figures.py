"""The numbers of a corpus: every source document has one fate, and distances are those written out."""

import json
from collections import Counter
from html.parser import HTMLParser
from math import log2

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_corpus import GENERAL, TUNING, config, rows, text, write

from taskmill.ingest import IngestConfig
from taskmill.recipes.corpus import Texts, corpus
from taskmill.recipes.corpus.figures import divergence

counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1)


@given(counts, counts)
def test_the_divergence_is_the_entropy_of_the_mean_less_the_mean_entropy(one, other):
    def shares(own):
        return {w: own.get(w, 0) / sum(own.values()) for w in "abcdef"}

    def entropy(p):
        return -sum(x * log2(x) for x in p.values() if x)

    a, b = shares(one), shares(other)
    mean = {w: (a[w] + b[w]) / 2 for w in a}
    wanted = entropy(mean) - (entropy(a) + entropy(b)) / 2
    assert divergence(one, other) == pytest.approx(wanted, abs=1e-12)
    assert divergence(one, other) == pytest.approx(divergence(other, one))
    assert 0 <= divergence(one, other) <= 1 + 1e-12


def test_equal_words_are_at_no_distance_and_none_in_common_at_one():
    assert divergence(Counter("aab"), Counter("aabaab")) == pytest.approx(0)
    assert divergence(Counter("aab"), Counter("cd")) == pytest.approx(1)
    assert divergence({}, {}) == 0
    assert divergence({}, {"a": 1}) == 1


def test_a_document_that_was_cut_is_one_document_of_several_texts(tmp_path):
    long = " ".join(text(i) for i in range(30))
    own = [{"text": long}, {"text": text(40)}, {"text": text(40)}, {"text": ""}, {"text": "too short"}]
    source = write(tmp_path / "t.jsonl", own)
    small = Texts(chunk_tokens=80)
    manifest = corpus(config(source, augment=0.5, ingest=small), tmp_path / "out")
    documents, texts = manifest["documents"], manifest["texts"]
    assert documents == {
        "in": 5, "augmented": documents["augmented"], "raw": 2 - documents["augmented"],
        "contaminated": 0, "over_target": 0, "dropped": 3, "lost": 0,
    }  # fmt: skip
    assert 1 <= documents["augmented"] <= 2
    assert texts["cut"] == texts["augmented"] + texts["raw"] > 5
    assert texts["lost"] == 0
    found = rows(tmp_path / "out")
    assert len({name for row in found for name in row["documents"]}) == 2
    assert len({name for row in found for name in row["texts"]}) == texts["cut"]
    assert IngestConfig(chunk_tokens=80).overlap == 0


@pytest.mark.parametrize("tokens", [0, 1500])
def test_every_document_has_one_fate_with_a_target_and_without(tokens, tmp_path):
    own = [{"text": text(i)} for i in range(40)] + [{"text": None}]
    test = write(tmp_path / "test.jsonl", [{"question": text(5)}])
    source = write(tmp_path / "t.jsonl", own)
    manifest = corpus(config(source, tokens=tokens, against=(test,)), tmp_path / "out")
    documents = manifest["documents"]
    assert documents["in"] == 41
    assert documents["lost"] == 0
    assert documents["contaminated"] == documents["dropped"] == 1
    assert sum(documents.values()) == 82
    assert (documents["over_target"] > 0) == (tokens > 0)


def test_what_is_left_out_of_tuning_and_general_data_is_stored_with_its_reason(tmp_path):
    source = write(tmp_path / "t.jsonl", [{"text": text(i)} for i in range(10)])
    general = [*GENERAL, GENERAL[3], {"instruction": "Say nothing.", "output": ""}]
    tuning = [*TUNING, TUNING[0], {"context": "", "QA_list": []}]
    files = [write(tmp_path / f"{n}.jsonl", own) for n, own in (("g", general), ("u", tuning))]
    own = config(source, general=(files[0],), tuning=(files[1],))
    manifest = corpus(own, tmp_path / "out")
    assert manifest["extras"] == {
        "tuning": {"in": 7, "kept": 5, "dropped": {"duplicate": 1, "empty": 1}},
        "general": {"in": 27, "kept": 25, "dropped": {"duplicate": 1, "empty": 1}},
    }
    lost = pq.read_table(tmp_path / "out" / "5-corpus" / "extras").to_pylist()
    assert Counter(row["reason"] for row in lost) == {"duplicate": 2, "empty": 2}
    assert all(row["detail"] for row in lost)
    assert manifest["dropped"] == {"duplicate": 2, "empty": 2}
    again = corpus(own, tmp_path / "out")
    assert again["extras"] == manifest["extras"]


def test_the_page_says_what_the_pairs_are_like(tmp_path):
    source = write(tmp_path / "t.jsonl", [{"text": text(i)} for i in range(20)])
    manifest = corpus(config(source, augment=1.0), tmp_path / "out")
    shift = manifest["shift"]
    assert 0 < shift["halves"] < 1
    assert 0 < shift["pairs_to_texts"] < 1
    assert shift["words"]["texts"] > shift["words"]["pairs"] > 0
    assert sum(manifest["texts_by_pairs"].values()) == 20
    assert sum(int(n) * count for n, count in manifest["texts_by_pairs"].items()) == manifest["pairs"]
    assert manifest["throughput"]["pairs_per_s"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    HTMLParser().feed(page)
    for words in ("Domain shift", "Pairs by task type", "Pairs per text", "the paper has about 5"):
        assert words in page
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["shift"] == shift
