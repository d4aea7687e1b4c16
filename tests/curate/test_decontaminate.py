"""Decontamination against brute force, hostile files and the command's own promises."""

import hashlib
import json
import math
import re
import zlib
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskmill.cli import main
from taskmill.curate import decontaminate as module
from taskmill.curate.benchmark_index import (
    Item,
    benchmark_task,
    index_of,
    join,
    read_index,
    shipped,
    tokenizer,
    write_index,
)
from taskmill.curate.decontaminate import Rule, find, prepare, scan, settle
from taskmill.durable import on_write
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.decontaminate import DecontaminateConfig, decontaminate
from taskmill.recipes.evaluation_sets import build_index, build_shipped
from taskmill.recipes.nested_text import strings, text_columns

WORDS = [f"w{i}" for i in range(6)]
QUESTION = (
    "A farmer counts nineteen grey geese on Monday, gives away a third of the goslings and buys two dozen "
    "hens at the market; how many birds with feathers does she feed on Tuesday evening?"
)
ANSWER = "She feeds the geese that are left and all of the new hens, which makes forty birds."
OTHER = (
    "Rivers bend where their banks are soft, and they cut new beds after every long and heavy winter rain."
)


def cut(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def index(*texts, kind="question"):
    return index_of("s", [Item(f"s/test/{i}", [(kind, t)]) for i, t in enumerate(texts)])


def pairs(table):
    return {(r["row"], int(r["item"].rpartition("/")[2])) for r in table.to_pylist()}


def shown(table, texts):
    return [[texts[r["row"]][s["start"] : s["end"]] for s in r["spans"]] for r in table.to_pylist()]


# The rules by brute force


def grams(words, size):
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def shared(row, part, size):
    """Return the words of the row, and of the part, that lie in an n-gram of both."""
    own, theirs = grams(row, size), grams(part, size)
    in_row = {i + k for i, g in enumerate(own) if g in theirs for k in range(size)}
    in_part = {i + k for i, g in enumerate(theirs) if g in own for k in range(size)}
    return in_row, in_part


def expected(mode, row, part):
    """Return (contaminated, score, words of the row) for one row and an item of one part."""
    if len(part) < 8:
        return False, 0.0, set()
    size = {"13gram": min(13, len(part)), "8gram50": 8, "exact": len(part)}[mode]
    in_row, in_part = shared(row, part, size)
    if mode != "8gram50":
        runs = [k for k in range(len(part), size - 1, -1) if set(grams(row, k)) & set(grams(part, k))]
        return bool(in_row), runs[0] / len(part) if runs else 0.0, in_row
    share = max(len(in_row) / max(len(row), 1), len(in_part) / len(part))
    return share > 0.5, share, in_row


@st.composite
def planted(draw):
    """Texts of few different words, into which pieces of the items are put."""
    word = st.sampled_from(WORDS)
    items = draw(st.lists(st.lists(word, min_size=1, max_size=24), min_size=1, max_size=4))
    pieces = []
    for item in items:
        a = draw(st.integers(0, len(item)))
        pieces += [item, item[:a], item[a:]]
    noise = st.lists(word, max_size=10)
    rows = draw(
        st.lists(st.lists(st.one_of(noise, st.sampled_from(pieces)), max_size=4), min_size=1, max_size=5)
    )
    return items, [list(chain.from_iterable(row)) for row in rows]


@pytest.mark.parametrize("mode", ["13gram", "8gram50", "exact"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=planted())
def test_exact_modes_equal_brute_force(mode, case):
    items, rows = case
    if max(map(len, items)) < 8:
        with pytest.raises(InputError, match="8 words"):
            find(pa.array(["x"]), index(*map(" ".join, items)), mode)
        return
    # Equal items are one, the first of them.
    distinct = {tuple(item): i for i, item in reversed(list(enumerate(items)))}
    texts = [" ".join(row) for row in rows]
    found = find(pa.array(texts), index(*map(" ".join, items)), mode, frequent=0)
    want = {}
    for r, row in enumerate(rows):
        for item, i in distinct.items():
            hit, score, words = expected(mode, row, list(item))
            if hit:
                want[r, i] = (score, words)
    assert pairs(found) == set(want)
    for r in found.to_pylist():
        score, words = want[r["row"], int(r["item"].rpartition("/")[2])]
        assert r["score"] == pytest.approx(score)
        text, starts = texts[r["row"]], np.cumsum([0] + [len(w) + 1 for w in rows[r["row"]]])
        covered = {
            i for i in range(len(starts) - 1) for s in r["spans"] if s["start"] <= starts[i] < s["end"]
        }
        assert covered == words
        assert all(
            cut(text[s["start"] : s["end"]]) == text[s["start"] : s["end"]].split() for s in r["spans"]
        )


def decon(row, question, answer, parts):
    """Return the score of a row and an item of a question and an answer, and the score it needs."""
    held = Counter(g for part in parts for g in set(grams(part, 5)))
    weight = {g: math.log((len(parts) + 1) / n) for g, n in held.items()}
    own, wanted, best = grams(row, 5), set(grams(question, 5)), 0.0
    total = sum(weight[g] for g in wanted)
    for at in range(0, len(own), 4):
        if own[at] not in wanted:
            continue
        ends = {}
        for way in (1, -1):
            i, last, missed = at, at, 0
            while 0 <= i < len(own) and missed < 11:
                last, missed = (i, 0) if own[i] in wanted else (last, missed + 1)
                i += way
            ends[way] = last
        share = sum(weight[g] for g in wanted & set(own[ends[-1] : ends[1] + 1])) / total
        near = max(2 * len(answer), 20)
        window = row[max(0, ends[-1] - near) : ends[1] + 5 + near]
        if len(answer) < 5:
            said = float(tuple(answer) in grams(window, len(answer)))
        else:
            theirs = set(grams(answer, 5))
            said = sum(weight[g] for g in theirs & set(grams(window, 5))) / sum(weight[g] for g in theirs)
        sure = min(1.0, 0.5 + len(wanted) / 40)
        best = max(best, 0.75 * sure * share + (1 - 0.75 * sure) * said)
    size = len(question) + len(answer)
    return best, 1 - 0.2 * min(max((size - 20) / 30, 0), 1)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_decon_equals_its_rule_by_brute_force(data):
    word = st.sampled_from([f"v{i}" for i in range(30)])
    question = data.draw(st.lists(word, min_size=8, max_size=50))
    answer = data.draw(st.lists(word, min_size=1, max_size=12))
    parts = [cut(QUESTION), question, answer]
    row = list(question)
    for _ in range(data.draw(st.integers(0, 3))):
        row[data.draw(st.integers(0, len(row) - 1))] = "changed"
    gap = data.draw(st.lists(word, max_size=30))
    row = data.draw(st.lists(word, max_size=9)) + row + gap + answer
    own = index_of(
        "s",
        [
            # A question of eight words in the index lets every fourth gram be probed.
            Item("s/t/0", [("question", " ".join(question)), ("answer", " ".join(answer))]),
            Item("s/t/1", [("question", " ".join(f"z{i}" for i in range(8)))]),
        ],
    )
    parts = [question, answer, [f"z{i}" for i in range(8)]]
    score, needed = decon(row, question, answer, parts)
    found = find(pa.array([" ".join(row)]), own, "decon")
    if abs(score - needed) > 1e-6:
        assert len(found) == (score >= needed)
    if len(found):
        assert found["score"][0].as_py() == pytest.approx(score)


def test_decon_wants_the_answer_near_the_question():
    item = Item("s/test/0", [("question", QUESTION), ("answer", ANSWER)])
    changed = QUESTION.replace("market", "fair")
    texts = [
        f"{OTHER} Q: {QUESTION} A: {ANSWER}",
        QUESTION,
        f"{QUESTION} {OTHER * 9} {ANSWER}",
        f"{changed} {ANSWER}",
        OTHER,
    ]
    found = find(pa.array(texts), index_of("s", [item]), "decon")
    scores = dict(zip(found["row"].to_pylist(), found["score"].to_pylist(), strict=True))
    assert set(scores) == {0, 3}
    assert scores[0] == pytest.approx(1.0)
    assert 0.8 <= scores[3] < 1.0
    assert shown(found, texts)[0] == [QUESTION[:-1]]


def test_decon_takes_items_with_a_short_question_beside_a_long_one():
    own = index_of("s", [Item("s/test/0", [("question", QUESTION), ("question", "Why?"), ("answer", "40")])])
    found = find(pa.array([OTHER, f"{QUESTION} 40", "Why?"]), own, "decon")
    assert found["row"].to_pylist() == [1]


# What hides nothing, and what must not match


@pytest.mark.parametrize("mode", ["13gram", "8gram50", "exact"])
def test_case_punctuation_and_spaces_hide_nothing(mode):
    text = f"¡ß İ 🦆 {QUESTION.upper().replace(' ', '  --  ')} 北京 end"
    found = find(pa.array([None, "", text]), index(QUESTION), mode)
    assert pairs(found) == {(2, 0)}
    (((inside,),),) = [shown(found, ["", "", text])]
    assert text.index("A  --  FARMER") == text.index(inside)
    assert inside.endswith("EVENING")


def test_places_are_characters_of_scripts_without_spaces_too():
    question = "北京大学位于中国的首都北京市海淀区颐和园路"
    text = f"İİ 😀 问：{question}？"
    found = find(pa.array([text]), index(question), "exact")
    assert shown(found, [text]) == [[question]]


def test_short_parts_match_nothing_and_middling_ones_only_whole():
    short = "Which of the following is true?"
    middle = "Which of the nine grey geese did she sell first?"
    own = index_of(
        "s", [Item("s/t/0", [("question", short), ("answer", "Yes")]), Item("s/t/1", [("question", middle)])]
    )
    texts = [f"{short} Yes", middle, f"Well, {middle} That one.", middle.replace(" first", "")]
    for mode in ("13gram", "8gram50", "exact"):
        found = {r for r, _ in pairs(find(pa.array(texts), own, mode))}
        assert found == ({1, 2, 3} if mode == "8gram50" else {1, 2})
    assert {r for r, _ in pairs(find(pa.array(texts), own, "exact", min_words=6))} == {0, 1, 2}


def test_common_13_grams_are_ignored_but_not_whole_items():
    head = " ".join(QUESTION.split()[:13])
    rows = [f"{head} row{i}" for i in range(11)]
    assert pairs(find(pa.array(rows[:10]), index(QUESTION))) == {(i, 0) for i in range(10)}
    assert pairs(find(pa.array(rows), index(QUESTION))) == set()
    assert len(pairs(find(pa.array(rows), index(QUESTION), frequent=0))) == 11
    assert pairs(find(pa.array([rows[0]] * 9 + [f"{head} {head}"]), index(QUESTION))) == {
        (i, 0) for i in range(10)
    }
    assert len(pairs(find(pa.array([QUESTION] * 30), index(QUESTION)))) == 30


def test_coverage_says_whose_words_count():
    words = QUESTION.split()
    texts = [f"{QUESTION} {OTHER} {OTHER}", " ".join(words[:10])]
    counted = {
        c: pairs(find(pa.array(texts), index(QUESTION), "8gram50", coverage=c))
        for c in ("item", "row", "either")
    }
    assert counted == {"item": {(0, 0)}, "row": {(1, 0)}, "either": {(0, 0), (1, 0)}}


def test_parts_can_be_chosen():
    own = index_of("s", [Item("s/t/0", [("question", QUESTION), ("passage", OTHER)])])
    texts = pa.array([QUESTION, OTHER])
    assert pairs(find(texts, own, "13gram")) == {(0, 0), (1, 0)}
    assert pairs(find(texts, own, "13gram", parts=("question",))) == {(0, 0)}


# Nothing depends on order, batches, cores


@pytest.mark.parametrize("mode", module.MODES)
def test_order_batches_and_cores_change_nothing(mode, monkeypatch):
    draw = np.random.default_rng(7)
    vocabulary = [f"v{i}" for i in range(40)]
    items = [list(draw.choice(vocabulary, 30)) for _ in range(12)]
    own = index(*map(" ".join, items))
    rows = []
    for _ in range(60):
        item = items[draw.integers(12)]
        rows.append(" ".join([*draw.choice(vocabulary, 9), *item[: draw.choice([9, 20, 30])], "x"]))
    once = find(pa.array(rows), own, mode)
    assert len(once) > 10
    order = draw.permutation(60)
    turned = find(pa.array([rows[i] for i in order]), own, mode)
    keyed = {(order[r["row"]], r["item"]): r for r in turned.to_pylist()}
    for r in once.to_pylist():
        assert keyed[r["row"], r["item"]] | {"row": r["row"]} == r
    for cores, batch in ((1, 7), (5, 64)):
        monkeypatch.setattr("os.cpu_count", lambda n=cores: n)
        monkeypatch.setattr(module, "_BATCH", batch)
        assert find(pa.chunked_array([rows[:13], rows[13:]]), own, mode).equals(once)
    search = prepare(own, Rule(mode))
    halves = [scan(pa.array(rows[:30]), search), scan(pa.array(rows[30:]), search, 30)]
    assert settle(halves, search).equals(once)


def test_one_word_over_and_over_is_no_trap():
    own = index("no " * 300, "no " * 20 + QUESTION)
    for mode in module.MODES:
        found = find(pa.array(["no " * 3000, "yes " * 3000]), own, mode)
        assert {r for r, _ in pairs(found)} <= {0}
    assert pairs(find(pa.array(["no " * 3000]), own, "exact")) == {(0, 0)}


def test_bad_options_are_named():
    own = index(QUESTION)
    for options in (
        {"mode": "12gram"},
        {"coverage": "all"},
        {"min_words": 4},
        {"share": 1.0},
        {"parts": ("x",)},
        {"n": 3},
    ):
        with pytest.raises(ConfigError):
            find(pa.array([QUESTION]), own, **options)


# Index files


def test_an_index_file_gives_back_the_index_and_holds_no_text(tmp_path):
    items = [
        Item("s/t/0", [("question", QUESTION), ("answer", "Forty")]),
        Item("s/t/1", [("passage", OTHER)]),
    ]
    own = index_of(
        "s", [*items, Item("s/t/2", [("question", QUESTION), ("answer", "forty!")]), Item("s/t/3", [])]
    )
    path = tmp_path / "s.index"
    write_index(own, path)
    again = read_index(path)
    assert again.ids == own.ids == ["s/t/0", "s/t/1"]
    for a, b in zip(again.parts, own.parts, strict=True):
        assert a.tolist() == b.tolist()
    data = path.read_bytes()
    raw = (data + zlib.decompress(data.partition(b"\n")[2])).lower()
    assert not [w for w in cut(QUESTION + OTHER) if len(w) > 4 and w.encode() in raw]
    write_index(own, tmp_path / "t.index")
    assert (tmp_path / "t.index").read_bytes() == data


def test_damaged_foreign_and_empty_indexes_are_refused(tmp_path):
    path = tmp_path / "s.index"
    write_index(index(QUESTION), path)
    data = path.read_bytes()
    line, _, payload = data.partition(b"\n")
    head = json.loads(line)

    def refused(content, words):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_index(path)

    refused(data[:-3], "damaged")
    refused(line + b"\n" + payload[:40] + b"\0" + payload[41:], "damaged")
    refused(b"not an index\n", "no index")
    refused(b"", "no index")
    refused(
        json.dumps(head | {"tokenizer": "0" * 16}).encode() + b"\n" + payload,
        "s.index was built with another",
    )
    refused(json.dumps(head | {"version": 9}).encode() + b"\n" + payload, "another tokenizer or version")
    refused(
        json.dumps(head | {"bytes": head["bytes"] | {"grams": 1 << 40}}).encode() + b"\n" + payload, "damaged"
    )
    refused(json.dumps(head | {"bytes": head["bytes"] | {"grams": 4}}).encode() + b"\n" + payload, "damaged")
    with pytest.raises(InputError, match="no item"):
        index_of("s", [Item("s/t/0", [("question", "?!")])])
    with pytest.raises(UsageError, match="two evaluation sets"):
        join([index(QUESTION), index(OTHER)])


def test_the_shipped_indexes_can_be_read_and_are_small():
    found = shipped()
    assert {"bbh", "gsm8k", "mgsm", "mmlu", "strategyqa"} <= set(found)
    assert sum(p.stat().st_size for p in found.values()) < 12 << 20
    whole = join([read_index(p) for p in found.values()])
    assert all(h["tokenizer"] == tokenizer() for h in whole.headers)
    assert all(
        i.split("/")[0] == whole.names[s] for i, s in zip(whole.ids, whole.suite.tolist(), strict=True)
    )


def test_the_shipped_indexes_are_those_of_the_files(shared_data, tmp_path):
    build_shipped(shared_data / "benchmarks", tmp_path)
    for name, path in shipped().items():
        assert (tmp_path / f"{name}.index").read_bytes() == path.read_bytes()


def test_planted_benchmark_questions_are_found_by_the_shipped_index(shared_data, tmp_path):
    questions = pq.read_table(shared_data / "benchmarks" / "gsm8k_test.parquet")["question"].to_pylist()[::40]
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"Solve. {q} Thanks." for q in questions] + [OTHER]}), rows)
    for mode in ("13gram", "8gram50", "exact"):
        config = DecontaminateConfig((str(rows),), ("gsm8k",), rule=Rule(mode))
        report = decontaminate(config, tmp_path / mode)
        assert report["funnel"]["kept"] == 1
        items = pq.read_table(tmp_path / mode / "dropped.parquet")["item"].to_pylist()
        assert items == [f"gsm8k/test/{i * 40}" for i in range(len(questions))]


def test_tasks_made_from_benchmarks_are_known_by_name(shared_data):
    lists = json.loads((shared_data / "superni" / "splits.json").read_text())
    made = [n for split in ("train", "test", "excluded") for n in lists[split] if benchmark_task(n)]
    assert len(made) == 57 + 3 + 1
    assert {benchmark_task(n).suite for n in made if "mmlu" in n} == {"mmlu"}
    assert sum("mmmlu" in n for n in made) == 57


# The command


@pytest.fixture
def rows(tmp_path):
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "instruction": [f"Please say: {QUESTION}", OTHER, "Tell me about rivers.", None],
            "messages": [
                [],
                [{"role": "user", "content": "hello"}],
                None,
                [{"role": "user", "content": "Now:"}, {"role": "user", "content": QUESTION}],
            ],
            "task": ["x", "y", "task664_mmmlu_answer_generation_abstract_algebra", "z"],
            "score": [1, 2, 3, 4],
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def against(tmp_path):
    path = tmp_path / "held_out.jsonl"
    lines = [{"question": "Short?", "answer": True}, {"question": QUESTION, "answer": 40}]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_every_row_is_kept_or_dropped_with_its_evidence(rows, against, tmp_path):
    out = tmp_path / "out"
    report = decontaminate(DecontaminateConfig((str(rows),), (str(against),)), out)
    source, kept = pq.read_table(rows), pq.read_table(out / "kept.parquet")
    assert kept.equals(source.slice(1, 1))
    dropped = pq.read_table(out / "dropped.parquet").to_pylist()
    assert [r["id"] for r in dropped] == ["a", "c", "d"]
    assert [r["reason"] for r in dropped] == ["contaminated", "benchmark_task", "contaminated"]
    assert [r["item"] for r in dropped] == ["held_out/rows/1", None, "held_out/rows/1"]
    assert [r["score_in"] for r in dropped] == [1, 3, 4]
    (span,) = dropped[0]["spans"]
    assert dropped[0][span["column"]][span["start"] : span["end"]] == QUESTION[:-1]
    assert dropped[2]["spans"] == [{"column": "messages", "start": 5, "end": 5 + len(QUESTION) - 1}]
    assert report["funnel"] == {"in": 4, "kept": 1, "dropped": {"benchmark_task": 1, "contaminated": 2}}
    (suite,) = report["suites"]
    assert (suite["items"], suite["too_short"], suite["matched"], suite["rows"]) == (2, 1, 1, 2)
    assert "50.0% of held_out" in report["warnings"][0]
    assert json.loads((out / "report.json").read_text()) == report


def test_columns_and_tasks_can_be_chosen(rows, against, tmp_path):
    config = DecontaminateConfig(
        (str(rows),), (str(against),), text=("instruction",), keep_benchmark_tasks=True
    )
    report = decontaminate(config, tmp_path / "out")
    assert report["funnel"] == {"in": 4, "kept": 3, "dropped": {"contaminated": 1}}


def test_json_lines_with_uneven_rows_work_like_parquet(against, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "hello there"}\n' + json.dumps({"text": QUESTION, "extra": [1]}) + "\n")
    report = decontaminate(DecontaminateConfig((str(path),), (str(against),)), tmp_path / "out")
    assert report["funnel"]["dropped"] == {"contaminated": 1}
    assert pq.read_table(tmp_path / "out" / "kept.parquet")["text"].to_pylist() == ["hello there"]


NESTED = pa.table(
    {
        "subject": [QUESTION, None],
        "turns": pa.array(
            [[[{"role": QUESTION, "content": [{"type": "text", "text": OTHER}]}]], None],
            pa.list_(pa.list_(pa.struct([
                ("role", pa.string()),
                ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
            ]))),
        ),
        "pair": pa.array([None, {"a": "x", "n": 1, "b": {"c": ANSWER}}]),
        "named": pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.large_string())),
        "few": pa.array([["a", None], None], pa.list_(pa.string(), 2)),
        "kind": pa.array(["x", None]).dictionary_encode(),
        "blob": pa.array([b"x", None]),
        "n": [1, 2],
    }
)  # fmt: skip


def test_text_is_found_however_it_is_nested_and_what_is_not_looked_at_is_named(tmp_path):
    looked, beside = text_columns(NESTED.schema, (), "rows")
    assert looked == ["turns", "pair", "named", "few", "kind"]
    assert beside == ["subject", "turns.role", "turns.content.type", "blob"]
    for sliced in (NESTED, pa.concat_tables([NESTED, NESTED]).slice(1, 2)):
        texts = {name: strings(sliced[name]).to_pylist() for name in looked}
        first = sliced["n"].to_pylist().index(1)
        assert [texts[n][first] for n in looked] == [OTHER, "\n", "v", "a\n", "x"]
        assert texts["pair"][1 - first] == f"x\n{ANSWER}"
        assert texts["turns"][1 - first] is None
    path, items = tmp_path / "rows.parquet", tmp_path / "items.jsonl"
    pq.write_table(NESTED.drop_columns(["few"]), path)  # Parquet cannot hold a null of a fixed size
    items.write_text("\n".join(json.dumps({"question": q}) for q in (OTHER, ANSWER, QUESTION)))
    report = decontaminate(DecontaminateConfig((str(path),), (str(items),)), tmp_path / "out")
    assert report["funnel"]["dropped"] == {"contaminated": 2}
    assert report["not_looked_at"] == beside
    assert [w for w in report["warnings"] if w.startswith("not looked at: subject, turns.role")]
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert [r["item"] for r in dropped] == ["items/rows/0", "items/rows/1"]
    assert dropped[1]["spans"] == [{"column": "pair", "start": 2, "end": 2 + len(ANSWER) - 1}]
    named = decontaminate(
        DecontaminateConfig((str(path),), (str(items),), text=("subject",)), tmp_path / "named"
    )
    assert named["funnel"]["dropped"] == {"contaminated": 1}
    assert named["text"] == ["subject"]


def test_columns_that_only_later_files_have_are_looked_at_and_kept(against, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["hello there", "and again"], "n": [1, 2]}), folder / "a.parquet")
    pq.write_table(pa.table({"text": ["hm"], "more": [QUESTION], "n": [0.5]}), folder / "b.parquet")
    (folder / "c.jsonl").write_text(json.dumps({"text": "bye", "other": "well"}))
    report = decontaminate(DecontaminateConfig((str(folder),), (str(against),)), tmp_path / "out")
    assert report["funnel"] == {"in": 4, "kept": 3, "dropped": {"contaminated": 1}}
    assert report["text"] == ["text", "more", "other"]
    (lost,) = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert (lost["id"], lost["more"], lost["n"], lost["spans"][0]["column"]) == ("2", QUESTION, 0.5, "more")
    kept = pq.read_table(tmp_path / "out" / "kept.parquet").to_pylist()
    assert [(r["id"], r["n"], r["other"]) for r in kept] == [
        ("0", 1, None),
        ("1", 2, None),
        ("3", None, "well"),
    ]
    pq.write_table(pa.table({"text": [[1.5]]}), folder / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: column 'text'"):
        decontaminate(DecontaminateConfig((str(folder),), (str(against),)), tmp_path / "out")


def test_repeated_ids_are_refused_across_batches(against, tmp_path, monkeypatch):
    monkeypatch.setattr("taskmill.recipes.pieces._PIECE", 2)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "a"], "text": ["x"] * 3}), path)
    with pytest.raises(InputError, match="rows 0 and 2"):
        decontaminate(DecontaminateConfig((str(path),), (str(against),)), tmp_path / "out")


def test_results_never_land_in_sources_or_foreign_folders(rows, against, tmp_path):
    foreign = tmp_path / "curated"
    foreign.mkdir()
    (foreign / "report.json").write_text('{"command": "curate"}')
    held = tmp_path / "held"
    held.mkdir()
    (held / "items.jsonl").write_bytes(against.read_bytes())
    config = DecontaminateConfig((str(rows),), (str(held / "items.jsonl"),))
    for out in (foreign, tmp_path, rows, held):
        with pytest.raises(UsageError):
            decontaminate(config, out)
    decontaminate(config, tmp_path / "out")
    again = decontaminate(replace(config, sources=(str(tmp_path / "out"),)), tmp_path / "again")
    assert again["funnel"] == {"in": 1, "kept": 1, "dropped": {}}


def test_an_index_of_ones_own_works_like_the_file(rows, against, tmp_path):
    made = build_index([str(against)], tmp_path / "held_out.index")
    assert made["items"] == 2
    by_file = decontaminate(DecontaminateConfig((str(rows),), (str(against),)), tmp_path / "a")
    by_index = decontaminate(
        DecontaminateConfig((str(rows),), (str(tmp_path / "held_out.index"),)), tmp_path / "b"
    )
    assert by_file == by_index
    assert (tmp_path / "a" / "dropped.parquet").read_bytes() == (
        tmp_path / "b" / "dropped.parquet"
    ).read_bytes()


def test_what_cannot_be_compared_is_refused_by_name(rows, against, tmp_path):
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), numbers)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    other = tmp_path / "other" / against.name
    other.parent.mkdir()
    other.write_bytes(against.read_bytes())
    index = tmp_path / "no.index"
    blocks = dict.fromkeys(("grams", "items", "kinds", "words", "ids"), 0)
    head = {"format": "taskmill-index", "version": 1, "name": "no", "gram": 5, "bits": 32, "bytes": blocks}
    digest = hashlib.blake2b(b"", digest_size=16).hexdigest()
    line = json.dumps(head | {"tokenizer": tokenizer(), "digest": digest}).encode()
    index.write_bytes(line + b"\n" + zlib.compress(b""))
    cases = [
        (DecontaminateConfig(), UsageError, "no table"),
        (DecontaminateConfig((str(numbers),), (str(against),)), InputError, "no column of text"),
        (
            DecontaminateConfig((str(rows),), (str(against),), text=("instructions",)),
            UsageError,
            "Did you mean",
        ),
        (DecontaminateConfig((str(rows),), (str(against),), text=("score",)), UsageError, "int64, not text"),
        (DecontaminateConfig((str(rows),), ("mmlo",)), InputError, "Did you mean 'mmlu'"),
        (DecontaminateConfig((str(rows),), (str(numbers),)), InputError, "no text"),
        (DecontaminateConfig((str(rows),), (str(empty),)), InputError, "no text"),
        (DecontaminateConfig((str(rows),), (str(against), str(other))), UsageError, "two evaluation sets"),
        (
            DecontaminateConfig((str(rows),), ("none",), keep_benchmark_tasks=True),
            UsageError,
            "nothing to look",
        ),
        (DecontaminateConfig((str(rows), str(rows)), (str(against),)), UsageError, "given twice"),
        (DecontaminateConfig((str(rows),), (str(index),)), InputError, "empty index"),
        (DecontaminateConfig((str(tmp_path / "none.parquet"),), (str(against),)), InputError, "no such file"),
        (DecontaminateConfig((str(empty),), (str(against),)), InputError, "empty.jsonl"),
    ]
    for config, error, words in cases:
        with pytest.raises(error, match=words):
            decontaminate(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_sources_are_one_table(rows, against, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"instruction": f"Say: {QUESTION}"}) + "\n" + '{"instruction": "hello"}\n')
    report = decontaminate(DecontaminateConfig((str(rows), str(other)), (str(against),)), tmp_path / "out")
    assert report["funnel"] == {"in": 6, "kept": 2, "dropped": {"benchmark_task": 1, "contaminated": 3}}
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet")["id"].to_pylist()
    assert dropped == ["a", "c", "d", "other/0"]
    assert pq.read_table(tmp_path / "out" / "kept.parquet")["id"].to_pylist() == ["b", "other/1"]


def test_against_none_drops_benchmark_tasks_only(rows, tmp_path):
    report = decontaminate(DecontaminateConfig((str(rows),), ("none",)), tmp_path / "out")
    assert report["funnel"] == {"in": 4, "kept": 3, "dropped": {"benchmark_task": 1}}
    assert (report["against"], report["suites"]) == ([], [])


@pytest.mark.parametrize(("mode", "part"), [("decon", "a question of 8"), ("exact", "question or answer or")])
def test_too_short_items_are_refused_by_the_part_that_is_looked_for(mode, part):
    short = [Item("s/test/0", [("question", "Why so?"), ("answer", QUESTION if mode == "decon" else "No.")])]
    with pytest.raises(InputError, match=part):
        find(pa.array(["x"]), index_of("s", short), mode)


FOLDS = "Der Fußgänger im ofﬁziellen Naïve-Café misst ½ Straße weiter südlich als Ａnna und ﬂieht ｶﾞ nun"
SAME = (
    "DER FUSSGÄNGER IM OFFIZIELLEN NAI\u0308VE-CAFE\u0301 MISST 1⁄2 STRASSE WEITER SÜDLICH ALS ANNA UND "
    "FLIEHT ガ NUN"
)


@pytest.mark.parametrize("mode", ["13gram", "8gram50", "decon", "exact"])
@pytest.mark.parametrize(
    ("item", "text"), [(FOLDS, SAME), (SAME, FOLDS), (FOLDS, f"z\u00adz {FOLDS}\u00ad!")]
)
def test_ligatures_sharp_s_and_loose_accents_hide_nothing(mode, item, text):
    found = find(pa.array(["nothing", f"« {text} »", None]), index(item), mode)
    assert pairs(found) == {(1, 0)}
    (span,) = found["spans"][0].as_py()
    want = f"« {text} »"[span["start"] : span["end"]]
    assert want == (FOLDS if FOLDS in text else SAME)


def test_an_index_lands_in_no_run_and_on_no_other_file(against, tmp_path):
    run, foreign = tmp_path / "run", tmp_path / "curated"
    for folder, name in ((run, "manifest.json"), (run, "config.yaml"), (foreign, "report.json")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text('{"command": "curate"}')
    mine = tmp_path / "mine.index"
    mine.write_text("notes")
    for out in (run / "x.index", foreign / "x.index", mine):
        with pytest.raises(UsageError):
            build_index([str(against)], out)
        assert out == mine or not out.exists()
    assert mine.read_text() == "notes"
    with pytest.raises(UsageError, match="no evaluation file"):
        build_index([], tmp_path / "own.index")
    build_index([str(against)], tmp_path / "own.index")
    head, _, packed = (tmp_path / "own.index").read_bytes().partition(b"\n")
    (tmp_path / "own.index").write_bytes(head.replace(b'"version": 1', b'"version": 0') + b"\n" + packed)
    assert build_index([str(against)], tmp_path / "own.index")["items"] == 2  # an older one is replaced


def test_an_index_is_built_alone(against, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(["decontaminate", str(against), "--build", str(tmp_path / "own.index"), *words])
        return end.value.code, capsys.readouterr().err

    for words in (["--out", str(tmp_path / "out")], ["--against", "mmlu"], ["--mode", "exact"]):
        code, error = run(*words)
        assert (code, "--build only writes an index" in error) == (2, True)
    assert not (tmp_path / "own.index").exists()
    assert run()[0] == 0
    assert read_index(tmp_path / "own.index").ids == ["own/rows/0", "own/rows/1"]


def test_a_killed_run_leaves_no_report(rows, against, tmp_path):
    config = DecontaminateConfig((str(rows),), (str(against),))
    decontaminate(config, tmp_path / "out")

    def kill(point):
        if point == "sync kept.parquet":
            raise KeyboardInterrupt

    on_write(kill)
    try:
        with pytest.raises(KeyboardInterrupt):
            decontaminate(config, tmp_path / "out")
    finally:
        on_write(None)
    assert not (tmp_path / "out" / "report.json").exists()
