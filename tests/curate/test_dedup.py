"""Exact and near duplicates, keys and caps against brute force; the command's files."""

import json
import math
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.config import build
from taskmill.curate import dedup
from taskmill.curate.dedup import (
    exact_duplicates,
    family_keys,
    keyed,
    near_duplicates,
    normalised,
    over_cap,
    preference,
    skeleton_keys,
)
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.kernels import near, words
from taskmill.kernels.graph import firsts, join
from taskmill.kernels.near import Bands, bands_for, same_texts, sketch, text_keys
from taskmill.kernels.rivals import _sort, nearest_before
from taskmill.recipes.dedup import DedupConfig
from taskmill.recipes.dedup import dedup as run

WORDS = [f"word{i}" for i in range(2000)]


def shingles(text, size):
    own = text.lower().replace(",", " ").replace(".", " ").split()
    if not own:
        return {text}
    return {tuple(own[i : i + size]) for i in range(max(len(own) - size + 1, 1))}


def jaccard(a, b, size=5):
    a, b = shingles(a, size), shingles(b, size)
    return len(a & b) / len(a | b)


def texts_of(seed, rows, length=30, vocabulary=2000):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS[:vocabulary], k=length)) for _ in range(rows)]


def changed(text, seed, times=1):
    draw, own = random.Random(seed), text.split()
    for place in draw.sample(range(len(own)), times):
        own[place] = f"other{draw.random()}".replace(".", "")
    return " ".join(own)


# groups


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30), st.randoms(use_true_random=False))
def test_firsts_names_the_first_row_of_an_equal_key(values, shuffle):
    keys = text_keys(pa.array([str(v) for v in values], pa.string()))
    order = list(range(len(values)))
    shuffle.shuffle(order)
    wanted, seen = [-1] * len(values), {}
    for row in order:
        wanted[row] = seen.setdefault(values[row], row)
    assert firsts(keys, np.array(order, np.int64)).tolist() == wanted
    half = order[::2]
    some = firsts(keys, np.array(half, np.int64))
    assert {row: some[row] for row in half} == {
        row: next(r for r in half if values[r] == values[row]) for row in half
    }
    assert all(some[row] == -1 for row in set(order) - set(half))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_components_are_named_by_their_smallest_node(links):
    found = np.arange(12)
    for some in (links[::2], links[1::2]):
        join(found, *(np.array([link[side] for link in some], np.int64) for side in (0, 1)))
    reach = {node: {node} for node in range(12)}
    for _ in range(12):
        for a, b in links:
            both = reach[a] | reach[b]
            reach[a], reach[b] = both, both
    for node in range(12):
        everyone = {m for m in range(12) if found[m] == found[node]}
        assert reach[node] <= everyone
        assert found[node] == min(everyone)
    assert len(set(found.tolist())) == 12 - spanning(links)


def spanning(links):
    parent, joined = list(range(12)), 0
    for a, b in links:
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a != b:
            parent[a] = b
            joined += 1
    return joined


# exact

SHORT = st.lists(
    st.one_of(
        st.none(), st.text(max_size=3), st.sampled_from(["", "a text of over sixteen bytes", "é" * 20])
    ),
    max_size=25,
)


def first_equal(values, order):
    seen, wanted = {}, [-1] * len(values)
    for row in order:
        first = seen.setdefault(values[row] or "", row)
        wanted[row] = -1 if first == row else first
    return wanted


@settings(max_examples=200, deadline=None)
@given(SHORT, st.randoms(use_true_random=False))
def test_exact_duplicates_are_those_of_a_dictionary(values, shuffle):
    order = list(range(len(values)))
    shuffle.shuffle(order)
    found = exact_duplicates(pa.array(values, pa.string()), np.array(order, np.int64))
    assert found.duplicate_of.tolist() == first_equal(values, order)
    assert found.keep.tolist() == [f < 0 for f in found.duplicate_of.tolist()]
    assert found.similarity.tolist() == [float(not k) for k in found.keep]


@settings(max_examples=30, deadline=None)
@given(SHORT)
def test_no_row_is_dropped_for_an_equal_key_alone(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "text_keys", lambda column: np.zeros((len(column), 2), np.uint64))
        found = exact_duplicates(pa.array(values, pa.string()))
    assert found.duplicate_of.tolist() == first_equal(values, range(len(values)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_keys_and_comparison_of_texts_read_every_byte(values, data):
    values = [v.hex() for v in values]
    place = data.draw(st.integers(0, len(values) - 1))
    if values[place]:  # a row that differs in one character
        at = data.draw(st.integers(0, len(values[place]) - 1))
        values.append(values[place][:at] + "x" + values[place][at + 1 :])
    column = pa.array(values)
    keys = [tuple(k) for k in text_keys(column).tolist()]
    pairs = [(i, j) for i in range(len(values)) for j in range(len(values))]
    left, right = (np.array([p[side] for p in pairs], np.int64) for side in (0, 1))
    wanted = [values[i] == values[j] for i, j in pairs]
    assert [keys[i] == keys[j] for i, j in pairs] == wanted
    assert same_texts(column, left, right).tolist() == wanted


def test_normalising_ignores_case_space_and_composition_but_no_sign():
    values = ["A  b\tC ", " a b c", "a-b c", "e\u0301", "É", "3 + 4", "3 - 4", "a\u00a0b\u2009c", None, " "]
    found = exact_duplicates(pa.array(values), normalise=True)
    assert found.duplicate_of.tolist() == [-1, 0, -1, -1, 3, -1, -1, 0, -1, 8]
    assert normalised(pa.array(values[:3])).to_pylist() == ["a b c", "a b c", "a-b c"]
    assert len(normalised(pa.array([], pa.string()))) == 0


# near


def greedy(texts, order, threshold, size, shares):
    """Judge rows in order against the kept rows they share a band with."""
    kept, wanted = [], {}
    for row in order:
        for other in kept:
            same = jaccard(texts[row], texts[other], size)
            if same == 1 and texts[row].lower().split() == texts[other].lower().split():
                wanted[row] = (other, 1.0)
                break
            if shares(row, other) and same >= threshold:
                wanted[row] = (other, same)
                break
        else:
            kept.append(row)
    return wanted


FEW = st.lists(st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join), max_size=14)


@settings(max_examples=80, deadline=None)
@given(FEW, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.integers(1, 4), st.randoms(use_true_random=False))
def test_near_duplicates_are_those_of_brute_force_over_shared_bands(texts, threshold, size, shuffle):
    order = list(range(len(texts)))
    shuffle.shuffle(order)
    column = near.in_one_piece(pa.array(texts, pa.string()))
    held = sketch(column, size, bands_for(threshold))
    survivor, similarity = nearest_before(column, held, size, threshold, np.array(order, np.int64))
    bands = held.bands.T.tolist()

    def shares(a, b):
        return any(x == y for x, y in zip(bands[a], bands[b], strict=True))

    wanted = greedy(texts, order, threshold, size, shares)
    got = {i: (int(survivor[i]), float(similarity[i])) for i in range(len(texts)) if survivor[i] != i}
    assert got == wanted


@settings(max_examples=60, deadline=None)
@given(FEW, st.sampled_from([0.4, 0.8]))
def test_every_dropped_row_is_near_a_kept_one_before_it(texts, threshold):
    found = near_duplicates(pa.array(texts, pa.string()), threshold, ngram=2)
    for row in np.flatnonzero(~found.keep):
        other = found.duplicate_of[row]
        assert found.keep[other]
        assert other < row
        assert found.similarity[row] == jaccard(texts[row], texts[other], 2) >= threshold
    assert (found.similarity[found.keep] == 0).all()


def test_planted_near_duplicates_are_found_and_nothing_else_is():
    base = texts_of(1, 500, length=60)
    copies = [changed(t, i, times=1 + i % 2) for i, t in enumerate(base)]
    near_ones = {i for i, (a, b) in enumerate(zip(base, copies, strict=True)) if jaccard(a, b) >= 0.8}
    assert 200 < len(near_ones) < 500
    found = near_duplicates(pa.array(base + copies))
    assert found.keep[:500].all()
    dropped = set((np.flatnonzero(~found.keep) - 500).tolist())
    assert dropped <= near_ones
    assert len(dropped) >= 0.95 * len(near_ones)
    assert all(found.duplicate_of[500 + i] == i for i in dropped)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=300), st.integers(1, 5))
def test_hashes_are_sorted_also_where_they_are_no_mixture(values, times):
    numbers = np.array(values * times, np.uint64)
    ordered = np.empty_like(numbers)
    _sort(numbers, np.empty(2 * len(numbers) + 3, np.int64), ordered)
    assert (ordered == np.sort(numbers)).all()


def test_bands_are_those_of_permutations_written_down():
    texts = pa.array(["one two three four five six seven", "alone", "", "a b c d e"])
    bands = Bands(3, 7)  # 21 values: more than one register, not two whole ones
    found = sketch(texts, 3, bands, seed=4)
    factors, shifts = np.random.Generator(np.random.PCG64(4)).integers(0, 1 << 32, (2, 32), np.uint32)
    factors |= np.uint32(1)
    grams, rows = words.ngrams(words.words(texts), 3)
    least = []
    for row in range(len(texts)):
        values = grams[rows[row] : rows[row + 1]]
        values = values if len(values) else found.keys[row, :1]
        tops = (values >> np.uint64(32)).astype(np.uint32)
        least.append((tops[:, None] * factors + shifts).min(axis=0)[:21].reshape(3, 7))
    for band in range(3):
        for a in range(4):
            for b in range(4):
                same = (least[a][band] == least[b][band]).all()
                assert (found.bands[band, a] == found.bands[band, b]) == same


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold_as_often_as_stated(threshold):
    bands = bands_for(threshold)
    assert bands.chance(threshold) >= 0.98
    shared, alone = 40, round(40 * (1 - threshold) / threshold / 2)  # one-word n-grams of two sets
    pairs = 400
    left, right = [], []
    for i in range(pairs):
        both = [f"b{i}x{k}" for k in range(shared)]
        left.append(" ".join(both + [f"l{i}x{k}" for k in range(alone)]))
        right.append(" ".join(both + [f"r{i}x{k}" for k in range(alone)]))
    held = sketch(near.in_one_piece(pa.array(left + right)), 1, bands)
    found = (held.bands[:, :pairs] == held.bands[:, pairs:]).any(axis=0).mean()
    chance = bands.chance(shared / (shared + 2 * alone))
    assert abs(found - chance) <= 5 * math.sqrt(chance * (1 - chance) / pairs) + 1e-9
    strangers = (held.bands[:, : pairs - 1] == held.bands[:, 1:pairs]).any(axis=0).mean()
    assert strangers < 0.1


def test_a_chain_of_small_steps_does_not_join_its_ends():
    base = texts_of(3, 1, length=50)[0]
    middle = changed(base, 1)
    end = changed(middle, 2)
    assert jaccard(base, end) < 0.7 <= min(jaccard(base, middle), jaccard(middle, end)) - 0.1
    assert near_duplicates(pa.array([base, middle, end]), 0.7).duplicate_of.tolist() == [-1, 0, -1]
    assert near_duplicates(pa.array([middle, base, end]), 0.7).duplicate_of.tolist() == [-1, 0, 0]


def test_short_texts_and_texts_without_words():
    values = ["a b", "A, b!", "a b c", "", None, "?", "!", "?", "b a", "日本", "日本。"]
    found = near_duplicates(pa.array(values))
    assert found.duplicate_of.tolist() == [-1, 0, -1, -1, 3, -1, -1, 5, -1, -1, 9]
    assert len(near_duplicates(pa.array([], pa.string())).keep) == 0
    assert near_duplicates(pa.array(["x"])).keep.tolist() == [True]


@pytest.mark.parametrize("form", ["rows", "blocks", "cores", "chunked"])
def test_neither_order_nor_blocks_nor_threads_change_the_result(form, monkeypatch):
    base = texts_of(5, 60, length=40)
    texts = [t for i, b in enumerate(base) for t in (b, changed(b, i), changed(b, -i), b.upper())]
    ids = [f"{random.Random(i).random():.12f}" for i in range(len(texts))]

    def verdicts(rows, column=None):
        column = pa.array([texts[r] for r in rows]) if column is None else column
        order = preference(pa.array([ids[r] for r in rows]), near.in_one_piece(column))
        found = near_duplicates(column, 0.6, ngram=3, order=order)
        named = [None if d < 0 else ids[rows[d]] for d in found.duplicate_of.tolist()]
        return {ids[r]: (n, s) for r, n, s in zip(rows, named, found.similarity.tolist(), strict=True)}

    rows = list(range(len(texts)))
    wanted = verdicts(rows)
    assert sum(n is not None for n, _ in wanted.values()) > 100
    column = None
    if form == "rows":
        random.Random(9).shuffle(rows)
    elif form == "blocks":
        monkeypatch.setattr(near, "BLOCK", 700)
    elif form == "cores":
        monkeypatch.setattr(words.os, "cpu_count", lambda: 7)
    else:
        column = pa.chunked_array([texts[:7], [], texts[7:]], pa.string())
    assert verdicts(rows, column) == wanted


def test_a_long_row_is_read_whole():
    long = " ".join(texts_of(6, 1, length=20_000))
    found = near_duplicates(pa.array([long, changed(long, 1, times=50), long[: len(long) // 2]]))
    assert found.duplicate_of.tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0.0}, {"threshold": 1.1}, {"ngram": 0}, {"threshold": float("nan")}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        near_duplicates(pa.array(["a"]), **wrong)


# which row stays, and on what rows are compared


def test_rows_are_preferred_by_id_or_length():
    texts = pa.array(["x", "yyy", "zz", "yyy"])
    assert preference(pa.array(["b", "c", "a", "d"]), texts).tolist() == [2, 0, 1, 3]
    assert preference(pa.array([10, 9, 100, 8]), texts).tolist() == [3, 1, 0, 2]
    assert preference(pa.array(["b", "d", "a", "c"]), texts, "longest").tolist() == [3, 1, 2, 0]
    one = preference(pa.array(["a"] * 3), pa.array(["p", "q", "r"]))
    other = preference(pa.array(["a"] * 3), pa.array(["r", "q", "p"]))
    assert ["pqr"[i] for i in one] == ["rqp"[i] for i in other]
    with pytest.raises(InputError, match="row 1 has no id"):
        preference(pa.array(["a", None]), pa.array(["p", "q"]))
    with pytest.raises(UsageError, match="longest"):
        preference(pa.array(["a"]), pa.array(["p"]), "newest")


def test_examples_are_compared_on_what_is_asked_for():
    table = pa.table(
        {
            "instruction": ["Sum up {{ context }}!", "No place.", "{\u2060{context}} {{context}}"],
            "context": ["the text", "c", None],
            "response": ["r", None, "s"],
        }
    )
    assert keyed(table, "instruction").to_pylist() == ["Sum up the text!", "No place.", "{{context}} "]
    assert keyed(table, "context").to_pylist() == ["the text", "c", ""]
    assert keyed(table, "pair").to_pylist()[:2] == ["Sum up !\nthe text\nr", "No place.\nc\n"]
    with pytest.raises(InputError, match="'response'"):
        keyed(table.drop_columns("response"), "pair")
    with pytest.raises(UsageError, match="pair"):
        keyed(table, "text")


# caps


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_cap_keeps_the_first_rows_of_each_group(values, cap, shuffle):
    order = list(range(len(values)))
    shuffle.shuffle(order)
    order = order[: len(order) * 3 // 4]
    capped = over_cap(
        text_keys(pa.array([str(v) for v in values], pa.string())), cap, np.array(order, np.int64)
    )
    groups = {v: [r for r in order if values[r] == v] for v in set(values)}
    for row, value in enumerate(values):
        inside = row in order
        assert capped.over[row] == (inside and groups[value].index(row) >= cap)
        if inside:
            assert (capped.first[row], capped.size[row]) == (groups[value][0], len(groups[value]))


def test_rows_of_one_template_have_one_skeleton():
    capitals = [
        ("Peru", "Lima"),
        ("Chad", "N'Djamena"),
        ("Oman", "Muscat"),
        ("Mali", "Bamako"),
        ("Cuba", "Havana"),
    ]
    instructions = [
        f'What is the capital of {c}? Use {i + 3} words, like "{c} {c} {i}".'
        for i, (c, _) in enumerate(capitals)
    ]
    contexts = [f"The capital of {c} is {t}." if i % 2 else f"{c}: {t}" for i, (c, t) in enumerate(capitals)]
    responses = [t for _, t in capitals]
    instructions += ["Name the largest city of Peru.", "What is the capital of Fiji?"]
    contexts += ["Peru: Lima", "nothing"]
    responses += ["Lima", "Suva"]
    keys = skeleton_keys(pa.array(instructions), pa.array(contexts), pa.array(responses))
    assert len({tuple(k) for k in keys[:5].tolist()}) == 1
    assert len({tuple(k) for k in keys.tolist()}) == 3


def test_sources_are_families():
    kind = pa.struct([(n, pa.string()) for n in ("document", "dataset", "config", "url")])
    rows = [
        {"dataset": "d", "config": "a", "document": "1"},
        {"dataset": "d", "config": "a", "document": "2"},
        {"dataset": "d", "config": "b"},
        {"url": "u", "document": "1"},
        {"document": "1"},
        None,
    ]
    keys = [tuple(k) for k in family_keys(pa.chunked_array([pa.array(rows, kind)])).tolist()]
    assert keys[0] == keys[1]
    assert keys[5] == (0, 0)
    assert len(set(keys)) == 5


# the command


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return DedupConfig(sources=(str(path),))


def read(out):
    return pq.read_table(out / "kept.parquet"), pq.read_table(out / "dropped.parquet")


def test_near_mode_writes_every_row_once_with_its_reason(tmp_path):
    base = texts_of(7, 30)
    texts = [*base, base[3].upper(), changed(base[4], 1)]
    config = write(tmp_path / "in.parquet", text=texts, n=list(range(32)))
    assert jaccard(texts[4], texts[31]) < 0.8
    seen = []
    report = run(
        build(DedupConfig, {"sources": config.sources, "threshold": 0.5}), tmp_path / "out", seen.append
    )
    kept, dropped = read(tmp_path / "out")
    assert kept.column_names == ["id", "text", "n"]
    assert kept["id"].to_pylist() == [str(i) for i in range(30)]
    assert dropped["duplicate_of"].to_pylist() == ["3", "4"]
    assert dropped["reason"].to_pylist() == ["near_duplicate"] * 2
    assert dropped["detail"].to_pylist()[0] == "Jaccard similarity 1.0000 of 5-word n-grams"
    assert dropped["n"].to_pylist() == [30, 31]
    assert report["funnel"] == {"in": 32, "kept": 30, "dropped": {"near_duplicate": 2}}
    assert report["groups"] == {"count": 2, "rows": 4}
    assert {"kept": "3", "rows": 2, "dropped": ["30"]} in report["largest"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert [(p.done, p.accepted) for p in seen] == [(0, 0), (32, 30)]


def test_exact_mode_and_the_longest_row(tmp_path):
    config = write(tmp_path / "in.parquet", id=[30, 4, 200, 5], text=["a b", "a  B", "c", "a b"])
    plain = run(build(DedupConfig, {"sources": config.sources, "mode": "exact"}), tmp_path / "plain")
    assert plain["funnel"]["dropped"] == {"duplicate": 1}
    _, dropped = read(tmp_path / "plain")
    assert dropped.select(["id", "duplicate_of", "detail"]).to_pylist() == [
        {"id": 30, "duplicate_of": "5", "detail": "the same text"}
    ]
    loose = {"sources": config.sources, "mode": "exact", "normalise": True, "keep": "longest"}
    run(build(DedupConfig, loose), tmp_path / "loose")
    kept, dropped = read(tmp_path / "loose")
    assert kept["id"].to_pylist() == [4, 200]
    assert dropped["duplicate_of"].to_pylist() == ["4", "4"]


def test_json_lines_with_keys_that_come_late_lose_nothing(tmp_path):
    lines = [{"text": "x"}, {"text": "y", "late": 1}, {"text": "x", "late": None}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    run(DedupConfig(sources=(str(tmp_path / "in.jsonl"),), mode="exact"), tmp_path / "out")
    kept, dropped = read(tmp_path / "out")
    assert kept.to_pylist() == [{"id": "0", "text": "x", "late": None}, {"id": "1", "text": "y", "late": 1}]
    assert dropped["duplicate_of"].to_pylist() == ["0"]


def test_a_run_folder_gives_what_its_last_finished_stage_kept(tmp_path):
    folder = tmp_path / "run"
    for stage, texts in (("1-remix", ["a"]), ("2-curate", ["b", "c"]), ("3-ctga", ["c"])):
        (folder / stage / "kept").mkdir(parents=True)
        columns = {"id": texts, "text": [stage] * len(texts)}
        pq.write_table(pa.table(columns), folder / stage / "kept" / "part-00000.parquet")
        if stage != "3-ctga":
            (folder / stage / "stage.json").write_text("{}")
    (folder / "manifest.json").write_text("{}")
    report = run(DedupConfig(sources=(str(folder),), mode="exact"), tmp_path / "out")
    assert report["funnel"] == {"in": 2, "kept": 1, "dropped": {"duplicate": 1}}


def examples(rows):
    source = pa.struct(
        [("dataset", pa.string()), ("config", pa.string()), ("url", pa.string()), ("document", pa.string())]
    )
    return {
        "id": [r[0] for r in rows],
        "instruction": [r[1] for r in rows],
        "context": [r[2] for r in rows],
        "response": [r[3] for r in rows],
        "source": pa.array([{"dataset": r[4]} for r in rows], source),
    }


def test_examples_are_compared_as_pairs_unless_told_and_capped_after(tmp_path):
    rows = [
        (f"{i:02}", "Which land is {{context}} in?", f"City{i}", f"Land{i}", "d" if i < 8 else "")
        for i in range(12)
    ]
    rows.append(("99", rows[0][1], rows[0][2], rows[0][3], "d"))
    rows.append(("98", "Say something else of it.", "q", "z", "d"))
    config = write(tmp_path / "in.parquet", **examples(rows))
    settings = {"sources": config.sources, "mode": "exact", "skeleton_cap": 9, "source_cap": 5}
    report = run(build(DedupConfig, settings), tmp_path / "out")
    assert report["settings"]["on"] == "pair"
    assert report["funnel"] == {
        "in": 14,
        "kept": 6,
        "dropped": {"duplicate": 1, "over_skeleton_cap": 3, "over_source_cap": 4},
    }
    kept, dropped = read(tmp_path / "out")
    assert kept["id"].to_pylist() == ["00", "01", "02", "03", "04", "08"]
    of = {r["id"]: (r["reason"], r["detail"], r["duplicate_of"]) for r in dropped.to_pylist()}
    assert of["11"] == ("over_skeleton_cap", "12 rows have the skeleton of 00; the cap is 9", None)
    assert of["98"] == ("over_source_cap", "9 rows have the source of 00; the cap is 5", None)
    assert of["99"] == ("duplicate", "the same text", "00")
    by_context = build(DedupConfig, {"sources": config.sources, "mode": "exact", "on": "context"})
    assert run(by_context, tmp_path / "context")["funnel"]["kept"] == 13


def test_the_order_of_the_rows_does_not_change_what_is_kept(tmp_path):
    base = texts_of(8, 20)
    texts = [*base, *(changed(t, i) for i, t in enumerate(base)), *base]
    ids = [f"{random.Random(str(i)).random():.9f}" for i in range(60)]
    rows, outcomes = list(range(60)), []
    for turn in range(2):
        random.Random(turn).shuffle(rows)
        config = write(tmp_path / "in.parquet", id=[ids[r] for r in rows], text=[texts[r] for r in rows])
        report = run(build(DedupConfig, {"sources": config.sources, "threshold": 0.5}), tmp_path / "out")
        kept, dropped = read(tmp_path / "out")
        lost = sorted(dropped.select(["id", "duplicate_of", "detail"]).to_pylist(), key=lambda r: r["id"])
        outcomes.append((sorted(kept["id"].to_pylist()), lost, report))
    assert len(outcomes[0][1]) > 20
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("settings", "columns", "error", "words"),
    [
        ({"mode": "exact", "threshold": 0.5}, {"text": ["a"]}, UsageError, "exact has no --threshold"),
        ({"mode": "exact", "ngram": 3}, {"text": ["a"]}, UsageError, "--ngram: it belongs to --mode near"),
        ({"normalise": True}, {"text": ["a"]}, UsageError, "--normalise: it belongs to --mode exact"),
        ({"embeddings": "v"}, {"text": ["a"]}, UsageError, "--mode semantic"),
        ({"embedder": "hash"}, {"text": ["a"]}, UsageError, "--mode semantic"),
        ({"on": "pair", "text": "a"}, {"text": ["a"]}, UsageError, "give one of them"),
        ({"mode": "semantic", "on": "pair", "embeddings": "v"}, {"text": ["a"]}, UsageError, "one of them"),
        ({"source_column": "url"}, {"text": ["a"]}, UsageError, "--source-cap"),
        ({"text": "txt"}, {"text": ["a"]}, UsageError, "'text'"),
        ({}, {"text": [1]}, UsageError, "holds int64, not text"),
        ({}, {"text": ["a"], "id": [1.5]}, InputError, "ids are texts"),
        ({}, {"text": ["a", "b"], "id": [1, 1]}, InputError, r"rows 0 and 1 .* both have the id 1"),
        ({}, {"text": ["a", "b"], "id": ["x", None]}, InputError, "row 1 .* has no 'id'"),
        ({"on": "pair"}, {"text": ["a"]}, InputError, "no known layout"),
        ({"skeleton_cap": 1}, {"text": ["a"]}, UsageError, "--skeleton-cap needs"),
        ({"source_cap": 1}, {"text": ["a"]}, UsageError, "--source-column"),
        ({"mode": "semantic", "embeddings": "v"}, {"text": ["a"]}, UsageError, "'v'"),
        ({}, {"text": pa.array([], pa.string())}, InputError, "no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path, settings, columns, error, words):
    config = write(tmp_path / "in.parquet", **columns)
    with pytest.raises(error, match=words):
        run(build(DedupConfig, {"sources": config.sources, **settings}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
    for name, said in (
        ("bad.parquet", "cannot be read"),
        ("bad.jsonl", "mixes kinds"),
        ("none.parquet", "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            run(DedupConfig(sources=(str(tmp_path / name),)), tmp_path / "out")
    with pytest.raises(UsageError, match="nothing to deduplicate"):
        run(DedupConfig(), tmp_path / "out")
    config = write(tmp_path / "in.parquet", text=["a"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        run(config, tmp_path / "file")
    with pytest.raises(ConfigError, match="mode"):
        build(DedupConfig, {"mode": "fuzzy"})


@given(st.lists(st.tuples(*[st.text("a\n: 1", max_size=3)] * 3), max_size=12))
def test_pairs_are_equal_only_if_each_column_is(rows):
    table = pa.table([pa.array(c, pa.string()) for c in zip(*rows, strict=True)] or [pa.array([], "str")] * 3,
                     ["instruction", "context", "response"])  # fmt: skip
    found = exact_duplicates(dedup.compared(table, "pair"))
    assert found.keep.tolist() == [row not in rows[:i] for i, row in enumerate(rows)]


def test_other_layouts_are_compared_and_capped_like_examples(tmp_path):
    lines = [{"prompt": f"Say {i % 3} in other words.", "completion": f"{i % 4}"} for i in range(12)]
    lines.append(lines[0])
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    settings = {"sources": [str(tmp_path / "in.jsonl")], "mode": "exact"}
    report = run(build(DedupConfig, settings), tmp_path / "pair")
    assert report["settings"]["on"] == "pair"
    assert report["funnel"]["dropped"] == {"duplicate": 1}
    report = run(build(DedupConfig, {**settings, "on": "instruction"}), tmp_path / "instruction")
    assert report["funnel"]["kept"] == 3
    assert report["warnings"][0].startswith("duplicate dropped 10 of 13 rows")
    report = run(build(DedupConfig, {**settings, "text": "completion"}), tmp_path / "text")
    assert report["funnel"]["kept"] == 4
    report = run(build(DedupConfig, {**settings, "skeleton_cap": 5}), tmp_path / "cap")
    assert report["funnel"]["dropped"] == {"duplicate": 1, "over_skeleton_cap": 7}


def test_chats_that_differ_in_an_early_turn_are_different(tmp_path):
    chats = [
        [first, "Fine.", "Thanks!", "You are welcome."] for first in ("Mend it.", "Paint it.", "Mend it.")
    ]
    rows = [
        {"messages": [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(chat)]}
        for chat in chats
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run(build(DedupConfig, {"sources": [str(tmp_path / "in.jsonl")], "mode": "exact"}), tmp_path / "out")
    kept, dropped = read(tmp_path / "out")
    assert kept["id"].to_pylist() == ["0", "1"]
    assert dropped["duplicate_of"].to_pylist() == ["0"]


def test_what_is_repeated_is_always_a_row_that_is_kept(tmp_path):
    draw = random.Random(3)
    rows = [
        (f"{i:03}", f"{draw.choice(['Name', 'Give'])} the capital of land {draw.randrange(9)}.", "",
         f"city {draw.randrange(3)}", draw.choice("abc"))
        for i in range(200)
    ]  # fmt: skip
    config = write(tmp_path / "in.parquet", **examples(rows))
    settings = {"sources": config.sources, "mode": "exact", "skeleton_cap": 7, "source_cap": 3}
    report = run(build(DedupConfig, settings), tmp_path / "out")
    kept, dropped = read(tmp_path / "out")
    repeated = [row for row in dropped.to_pylist() if row["reason"] == "duplicate"]
    assert len(repeated) == report["funnel"]["dropped"]["duplicate"] > 100
    assert {row["duplicate_of"] for row in repeated} <= set(kept["id"].to_pylist())
    of = {row[0]: row[1:4] for row in rows}
    moved = [row for row in repeated if of[row["id"]] != of[row["duplicate_of"]]]
    assert moved
    assert all("which is over a cap" in row["detail"] for row in moved)
    assert all("over a cap" not in row["detail"] for row in repeated if row not in moved)


def test_evidence_of_one_command_is_input_of_the_next(tmp_path):
    config = write(tmp_path / "in.parquet", text=["a", "a", "a"])
    run(build(DedupConfig, {"sources": config.sources, "mode": "exact"}), tmp_path / "one")
    dropped = (str(tmp_path / "one" / "dropped.parquet"),)
    run(build(DedupConfig, {"sources": dropped, "mode": "exact"}), tmp_path / "two")
    kept, dropped = read(tmp_path / "two")
    assert kept["reason"].to_pylist() == ["duplicate"]
    assert dropped.select(["id", "reason_in", "duplicate_of_in", "reason", "duplicate_of"]).to_pylist() == [
        {
            "id": "2",
            "reason_in": "duplicate",
            "duplicate_of_in": "0",
            "reason": "duplicate",
            "duplicate_of": "1",
        }
    ]


def test_vectors_need_no_text(tmp_path):
    config = write(tmp_path / "in.parquet", id=["10", "9"], v=pa.array([[1.0, 0.0], [1.0, 0.0]]))
    run(
        build(DedupConfig, {"sources": config.sources, "mode": "semantic", "embeddings": "v"}),
        tmp_path / "out",
    )
    kept, _ = read(tmp_path / "out")
    assert kept["id"].to_pylist() == ["9"]  # ids that are all numbers are ordered as numbers


def test_an_interrupted_write_leaves_no_report(tmp_path, monkeypatch):
    from taskmill.durable import on_write

    config = write(tmp_path / "in.parquet", text=["a", "a"])
    run(config, tmp_path / "out")

    def break_at(name):
        if name == "write dropped.parquet":
            raise RuntimeError("power failure")

    on_write(break_at)
    try:
        with pytest.raises(RuntimeError):
            run(config, tmp_path / "out")
    finally:
        on_write(None)
    assert not (tmp_path / "out" / "report.json").exists()
