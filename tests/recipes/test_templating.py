"""The journey from rows to prompts: every style, every column, nothing lost, nothing by position."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill import cli
from taskmill.backends.tokenizer import TextTokenizer
from taskmill.errors import ConfigError, UnknownName, UsageError
from taskmill.recipes.phrasing import stock_of
from taskmill.recipes.templating import COLUMNS, RenderConfig, render
from taskmill.templates import endings, schema
from taskmill.templates.sets import declared, find, from_columns

TOPICS = ["sun", "moon", "rain", "snow", "wind", "fog"]


def rows(count=120):
    return [
        {
            "id": f"r{i}",
            "context": f"Passage {i} tells\tof the {TOPICS[i % 6]}.\nIt goes on \\n here, ünïcode 𝒳 {i}.",
            "question": f"What does passage {i} tell of?",
            "answer": TOPICS[i % 6],
            "options": TOPICS,
            "rationale": f"It names the {TOPICS[i % 6]} in its first line.",
            "licence": "MIT" if i % 2 else "CC-BY-4.0",
        }
        for i in range(count)
    ]


@pytest.fixture
def made(tmp_path):
    """Return a function that renders rows and gives (table, report, dropped)."""

    def run(given=None, name="pets.parquet", **settings):
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(rows() if given is None else given), path)
        out = tmp_path / "out.parquet"
        config = RenderConfig(source=str(path), **{"templates": "mcqa", **settings})
        report = render(config, out)
        return pq.read_table(out), report, pq.read_table(tmp_path / "out.dropped.parquet")

    return run


STYLES = [
    {},
    {"options": True},
    {"cot": True},
    {"invert": True},
    {"cot": True, "invert": True},
    {"cot": True, "options": True},
]


@pytest.mark.parametrize("style", ["zs", "fs"])
@pytest.mark.parametrize("how", STYLES, ids=lambda h: "+".join(h) or "plain")
def test_every_style_has_every_column_and_drops_no_tail(made, style, how):
    table, report, dropped = made(rows(113), style=style, bare=0.0, **how)  # no multiple of ten
    assert table.schema == COLUMNS
    assert sorted(table["upstream_id"].to_pylist()) == sorted(r["id"] for r in rows(113))
    assert report["funnel"] == {"in": 113, "kept": 113, "dropped": {}}
    assert len(dropped) == 0
    name = "_".join([style, "opt" if how.get("options") else "noopt"])
    name += ("_cot" if how.get("cot") else "") + ("_inv" if how.get("invert") else "")
    assert report["styles"] == {name: 113}
    assert len(report["templates"]) >= 10
    assert pc.all(pc.greater(pc.utf8_length(table["prompt"]), 0)).as_py()
    assert not pc.any(pc.match_substring(table["prompt"], "{{")).as_py()
    assert len(set(table["id"].to_pylist())) == 113
    by_licence = table.filter(pc.is_in(table["licence"], pa.array(["MIT"])))
    assert {r["licence"] for r in by_licence.to_pylist()} == {"MIT"}
    assert len(by_licence) == 113 // 2


def test_the_fields_stand_in_the_prompt_character_by_character(made):
    table, _, _ = made()
    by_id = {r["id"]: r for r in rows()}
    for row in table.to_pylist():
        given = by_id[row["upstream_id"]]
        assert given["context"] in row["prompt"]
        assert given["question"] in row["prompt"]
        assert row["completion"] == given["answer"]


ANY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=25).filter(lambda t: t.strip())
HARD = st.sampled_from(
    ["\\n", "a\nb", "\ttab", "x\r\ny", "{{ answer }}", "{% raw %}", "é\u0301", "𝒳\u200f", "\x00 x", "</s>"]
)


@given(st.lists(st.tuples(ANY | HARD, ANY | HARD, ANY | HARD), min_size=1, max_size=12), st.booleans())
@settings(max_examples=25)
def test_every_character_survives_the_journey(texts, few):
    """R14: newlines, tabs, unicode, a literal backslash-n; from the file through templates to the file."""
    given_rows = [
        {"id": str(i), "context": c, "question": q, "answer": a} for i, (c, q, a) in enumerate(texts)
    ]
    with TemporaryDirectory() as folder:
        source, out = Path(folder) / "rows.parquet", Path(folder) / "out.parquet"
        pq.write_table(pa.Table.from_pylist(given_rows), source)
        report = render(RenderConfig(source=str(source), templates="qa", style="fs" if few else "zs"), out)
        table = pq.read_table(out)
    assert report["funnel"]["kept"] == len(texts)
    for row in table.to_pylist():
        c, q, a = texts[int(row["upstream_id"])]
        assert c in row["prompt"]
        assert q in row["prompt"]
        assert row["completion"] == a
        for i in row["exemplars"]:
            assert all(text in row["prompt"] for text in texts[int(i)])


def test_templates_are_drawn_evenly_and_not_by_position(made):
    table, report, _ = made(rows(3000))
    found = list(report["templates"].values())
    expected = 3000 / len(found)
    assert sum((n - expected) ** 2 / expected for n in found) < 36.1  # 99.9 %, up to 14 degrees of freedom
    assert len(found) <= 15
    # Within each residue of the position modulo ten, all templates still come.
    residues = Counter((i % 10, t) for i, t in enumerate(table["template"].to_pylist()))
    assert len(residues) == 10 * len(found)
    cell = 300 / len(found)
    chi = sum((n - cell) ** 2 / cell for n in residues.values())
    degrees = 10 * (len(found) - 1)
    assert chi < degrees + 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("style", ["zs", "fs"])
def test_the_order_of_the_file_changes_no_row(made, style):
    one, _, _ = made(style=style, options=True)
    other, _, _ = made(rows()[::-1], style=style, options=True)
    key = [("upstream_id", "ascending")]
    assert one.sort_by(key).equals(other.sort_by(key))


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(made):
    one, _, _ = made(style="fs")
    assert made(style="fs")[0].equals(one)
    assert not made(style="fs", seed=1)[0].equals(one)
    assert not made(style="fs", epoch=1)[0].equals(one)


def test_options_are_shuffled_and_the_target_names_the_right_one(made):
    table, _, _ = made(options=True)
    by_id = {r["id"]: r for r in rows()}
    forms = Counter()
    for row in table.to_pylist():
        (gold,) = row["gold"]
        right = by_id[row["upstream_id"]]["answer"]
        assert row["options"][gold] == right
        assert sorted(row["options"]) == sorted(TOPICS)
        forms[row["completion"] == right] += 1
    assert min(forms.values()) > 10
    assert len(set(table["option_style"].to_pylist())) > 30
    texts, _, _ = made(options=True, target="text")
    assert all(r["completion"] == by_id[r["upstream_id"]]["answer"] for r in texts.to_pylist())
    labels, _, _ = made(options=True, target="label")
    assert not any(r["completion"] in TOPICS for r in labels.to_pylist())


def test_without_options_none_are_shown(made):
    table, _, _ = made()
    assert set(map(len, table["options"].to_pylist())) == {0}
    assert not any(all(t in p for t in TOPICS) for p in table["prompt"].to_pylist())


def test_every_chain_of_thought_gives_its_answer_back(made):
    table, _, _ = made(rows(400), cot=True)
    by_id = {r["id"]: r for r in rows(400)}
    for row in table.to_pylist():
        given = by_id[row["upstream_id"]]
        assert endings.parse(row["completion"]) == (given["rationale"], given["answer"], row["ending"])
        assert given["rationale"] not in row["prompt"]
    assert set(table["ending"].to_pylist()) == {e.name for e in endings.endings()}


def test_inverted_rows_ask_for_what_was_given(made):
    table, _, _ = made(invert=True)
    by_id = {r["id"]: r for r in rows()}
    for row in table.to_pylist():
        given = by_id[row["upstream_id"]]
        assert row["completion"] == given["question"]
        assert given["question"] not in row["prompt"]
        assert given["answer"] in row["prompt"]


def test_columns_taken_whole_say_what_rows_one_by_one_say():
    given = [{k: row[k] for k in ("id", "context", "question", "answer", "licence")} for row in rows(40)]
    given[3]["context"], given[5]["answer"], given[7]["licence"] = None, " \t", None
    table = pa.Table.from_pylist(given)
    plain = from_columns("pets", table.column_names, {}, "qa", "own")
    slow = replace(plain, fields={**plain.fields, "context": "context if context else none"})
    one, other = (stock_of(table, dataset, "own") for dataset in (plain, slow))
    fit = np.array([i for i in range(40) if i not in one.unfit])
    assert one.unfit == other.unfit
    assert set(one.unfit) == {3, 5}
    assert one.take(fit) == other.take(fit)
    assert one.licences[7] == "own"


# few-shot


def test_exemplars_are_others_rows_of_the_same_template(made):
    table, report, _ = made(style="fs", shots="3", bare=0.0)
    contexts = {r["id"]: r["context"] for r in rows()}
    for row in table.to_pylist():
        assert len(row["exemplars"]) == len(set(row["exemplars"])) == row["shots"] == 3
        assert row["upstream_id"] not in row["exemplars"]
        places = [row["prompt"].index(contexts[i]) for i in [*row["exemplars"], row["upstream_id"]]]
        assert places == sorted(places)
    assert report["shots"] == {"3": 120}


def test_duplicates_of_a_query_are_no_exemplars(made):
    given = rows(30)
    twins = [{**row, "id": f"twin of {row['id']}", "question": row["question"].upper()} for row in given]
    table, _, _ = made([*given, *twins], style="fs", shots="5")
    for row in table.to_pylist():
        own = row["upstream_id"].removeprefix("twin of ")
        assert own not in {e.removeprefix("twin of ") for e in row["exemplars"]}


def test_mixed_templates_differ_within_a_prompt_consistent_ones_do_not(made):
    words = {
        name: {t.split("{{")[0] for t in texts if not t.startswith("{{")}
        for name, texts in [("x", [t.input for t in schema.builtin()["mcqa"].templates])]
    }["x"]
    starts = [w for w in words if len(w) > 12]

    def kinds(table):
        return [sum(w in p for w in starts) for p in table["prompt"].to_pylist()]

    consistent, _, _ = made(style="fs", shots="5", bare=0.0)
    mixed, _, _ = made(style="fs", shots="5", bare=0.0, mixed=True)
    assert max(kinds(consistent)) <= 2  # some beginnings hold others
    assert sum(kinds(mixed)) > 2 * sum(kinds(consistent))


def test_exemplars_of_a_chain_of_thought_hold_their_reasoning(made):
    table, _, _ = made(style="fs", shots="2", cot=True)
    reasons = {r["id"]: r["rationale"] for r in rows()}
    for row in table.to_pylist():
        assert all(reasons[i] in row["prompt"] for i in row["exemplars"])


def test_a_budget_drops_exemplars_and_counts_the_fall_back(made):
    given = rows(60)
    for row in given[:20]:
        row["context"] = "long " * 4000 + row["id"]
    table, report, _ = made(given, style="fs", shots="2", max_tokens=200)
    assert report["fallback_to_zero_shot"] == report["styles"]["zs_noopt"] > 0
    assert report["styles"]["fs_noopt"] > 0
    long_ones = {r["id"] for r in given[:20]}
    assert not any(long_ones & set(row["exemplars"]) for row in table.to_pylist())
    for row in table.to_pylist():
        if not row["shots"]:
            assert "/bare_" not in row["template"]  # a prompt alone needs its instruction


def test_a_pool_of_its_own(made, tmp_path):
    pool = [{**row, "id": f"pool {row['id']}", "question": f"And {row['question']}"} for row in rows(20)]
    pq.write_table(pa.Table.from_pylist(pool), tmp_path / "pool.parquet")
    table, _, _ = made(style="fs", pool=str(tmp_path / "pool.parquet"))
    assert all(e.startswith("pool ") for row in table.to_pylist() for e in row["exemplars"])


class Words(TextTokenizer):
    """Knows ASCII words only: one token each, 0 for any other."""

    name = "words"

    def __init__(self):
        super().__init__()
        self.special_tokens = {"unk_token": "<unk>"}

    def _rows(self, texts):
        return [
            np.array([len(w) if w.isascii() and w != "<unk>" else 0 for w in t.split()], np.uint32)
            for t in texts
        ]


def test_a_tokenizer_counts_the_budget_and_what_it_does_not_know(made, monkeypatch):
    from taskmill.recipes import templating

    monkeypatch.setattr(templating, "load_text_tokenizer", lambda ref: Words())
    table, report, _ = made(style="fs", shots="3", tokenizer="words", max_tokens=90, bare=0.0)
    words = " ".join([*table["prompt"].to_pylist(), *table["completion"].to_pylist()]).split()
    assert report["unknown_tokens"] == pytest.approx(np.mean([not w.isascii() for w in words]), abs=1e-12)
    assert "unknown to words" in report["warnings"][0]
    assert set(report["shots"]) <= {"1", "2", "3"}
    assert max(len(p.split()) for p in table["prompt"].to_pylist()) < 90 + 60
    assert made()[1]["unknown_tokens"] is None


def test_a_share_of_prompts_has_no_instruction(made):
    _, report, _ = made(rows(1000), style="fs", bare=0.3)
    bare = sum(n for name, n in report["templates"].items() if "/bare_" in name)
    assert 240 < bare < 360


# what cannot be phrased


def test_bad_rows_are_dropped_with_a_reason_and_nothing_vanishes(made):
    given = rows(40)
    given[3]["answer"] = "volcano"
    given[4]["options"] = ["wind", "wind"]
    given[5]["context"] = " "
    given[6]["question"] = None
    table, report, dropped = made(given, options=True)
    assert report["funnel"] == {"in": 40, "kept": 36, "dropped": {"bad_options": 2, "null_text": 2}}
    assert dropped["id"].to_pylist() == ["r3", "r4", "r5", "r6"]
    assert "volcano" in dropped["detail"][0].as_py()
    assert len(table) == 36
    assert "options 0 and 1 are the same" in dropped["detail"][1].as_py()


def test_several_right_answers_are_all_named(made):
    given = [{**row, "answer": ["sun", "fog"]} for row in rows(30)]
    table, _, _ = made(given, options=True, target="text")
    for row in table.to_pylist():
        assert {row["options"][i] for i in row["gold"]} == {"sun", "fog"}
        assert "sun" in row["completion"]
        assert "fog" in row["completion"]


def test_a_place_of_the_right_option_is_an_answer(made):
    given = [{k: v for k, v in row.items() if k != "answer"} | {"label": 2} for row in rows(30)]
    table, _, _ = made(given, options=True, target="text", fields={"gold": "label"})
    assert set(table["completion"].to_pylist()) == {"rain"}


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"templates": "mcq"}, UsageError, "Did you mean 'mcqa'"),
        ({"templates": ""}, UsageError, "no declared data set"),
        ({"templates": "sentiment", "cot": True}, UsageError, "--cot needs a rationale"),
        ({"invert": True, "options": True}, UsageError, "leave one of"),
        ({"templates": "summarization", "options": True}, UsageError, "--no-options"),
        ({"set": "nothing"}, UnknownName, "no set is called"),
        ({"fields": {"answr": "x"}}, ConfigError, "Did you mean 'answer'"),
        ({"style": "fs", "shots": "many"}, ConfigError, "shots"),
        (
            {"given": [{"answer": "x", "question": "y"}], "templates": "nli"},
            UsageError,
            "no template for rows",
        ),
    ],
)
def test_what_cannot_be_done_is_said(made, settings, error, said):
    with pytest.raises(error, match=said):
        made(**settings)


def test_own_templates_and_columns(made, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "cluster: riddles\n"
        "fields:\n  question: {called: riddle, invertible: true}\n  answer: {called: solution}\n"
        "target: '{{ answer }}!'\n"
        "templates:\n  - {name: loud, input: '{% if question %}{{ question | upper }}{% endif %}'}\n"
    )
    given = [{"riddle": f"what is {i}?", "solution": f"it {i}"} for i in range(12)]
    table, _, _ = made(
        given, templates=str(path), fields={"question": "riddle", "answer": "solution"}, licence="MIT"
    )
    first = table.to_pylist()[0]
    assert (first["prompt"], first["completion"], first["licence"]) == ("WHAT IS 0?", "it 0!", "MIT")
    assert first["cluster"] == "riddles"


def test_faults_of_own_wordings_are_warnings_and_broken_files_are_refused(made, tmp_path):
    path = tmp_path / "own.yaml"
    head = "fields:\n  question: {called: q}\n  answer: {called: a}\ntemplates:\n"
    path.write_text(
        head + "  - {name: x, input: '{{ question }} Choose from these.', target: '{{ answer }}'}\n"
    )
    _, report, _ = made(templates=str(path))
    assert [w.split(": ")[1] for w in report["warnings"]] == ["options-without-options"]
    path.write_text(head + "  - {name: x, input: '{{ question', target: '{{ answer }}'}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml:5: broken-jinja"):
        made(templates=str(path))


# the command and the declared sets


def test_the_command(made, tmp_path, capsys):
    made()
    argv = [
        "render",
        str(tmp_path / "pets.parquet"),
        "--templates",
        "mcqa",
        "--style",
        "fs",
        "--options",
        "--seed",
        "4",
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv, "--out", str(tmp_path / "o.parquet"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert report["funnel"]["kept"] == len(pq.read_table(tmp_path / "o.parquet")) == 120
    assert json.loads((tmp_path / "o.report.json").read_text())["templates"] == report["templates"]


def test_a_result_never_replaces_its_source(made, tmp_path):
    made()
    with pytest.raises(UsageError, match="would write into the source"):
        render(
            RenderConfig(source=str(tmp_path / "pets.parquet"), templates="mcqa"), tmp_path / "pets.parquet"
        )


def test_declared_sets_name_clusters_that_exist():
    assert len(declared()) >= 45
    for one in declared().values():
        for name in one.clusters:
            cluster = schema.builtin()[name]
            assert cluster.asked in one.has, (one.name, name)
            for options in {False, {"options", "answer"} <= one.has and "options" in cluster.fields}:
                found = schema.usable(cluster, one.has, options=options)
                assert len(found) >= 10, (one.name, name, options, len(found))


def test_every_training_file_of_the_catalogue_can_be_rendered(shared_data, tmp_path, monkeypatch):
    from taskmill.recipes import phrasing

    read, together = phrasing.read_table, phrasing.joined
    monkeypatch.setattr(phrasing, "read_table", lambda sources: read(sources).slice(0, 60))
    monkeypatch.setattr(phrasing, "joined", lambda tables: together(tables).slice(0, 60))
    catalogue = json.loads((shared_data / "CATALOG.json").read_text())["files"]
    tried = 0
    for file in catalogue:
        path = shared_data / file["folder"] / file["file"]
        # t0_rendered has prompts already; tasks.parquet describes the tasks of instances.parquet.
        if file["role"] != "train" or path.stem in ("t0_rendered", "tasks") or path.suffix != ".parquet":
            continue
        assert find("", str(path)) is not None, file["name"]
        report = render(RenderConfig(source=str(path), style="fs"), tmp_path / "o.parquet")
        assert report["funnel"]["kept"] >= 0.8 * report["funnel"]["in"] > 0, file["name"]
        tried += 1
    assert tried >= 80


def test_batches_change_no_row(made, monkeypatch):
    whole, report, _ = made(style="fs", options=True, mixed=True)
    monkeypatch.setattr("taskmill.recipes.rendered.PART", 7)
    parts, other, _ = made(style="fs", options=True, mixed=True)
    assert parts.equals(whole)
    assert other == report


def test_no_exemplars_asked_for_and_no_row_left(made):
    table, report, _ = made(style="fs", shots="0")
    assert (len(table), report["fallback_to_zero_shot"], report["styles"]) == (120, 0, {"zs_noopt": 120})
    table, report, dropped = made([{**row, "question": ""} for row in rows(5)], style="fs")
    assert (len(table), len(dropped), report["funnel"]["kept"]) == (0, 5, 0)
    assert "no row of" in report["warnings"][0]
    table, report, _ = made(rows(1), style="fs")
    assert (len(table), report["fallback_to_zero_shot"]) == (1, 1)
