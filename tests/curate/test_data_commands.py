"""Commands over finished data from the command line: every flag with values that work, and chains of them."""

import json
from collections import defaultdict

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill import cli
from taskmill.select import SELECTORS

ROWS = [
    {
        "id": f"row-{i:02}",
        "instruction": f"Which land is the city of {{{{context}}}} in, and since when? Variant {i % 4}.",
        "context": f"A long passage about city number {i} by the river and its old harbour",
        "response": f"It is in land number {i % 5}",
        "text": f"plain text number {i % 7} of the table",
        "label": f"l{i % 3}",
        "n": 5 + i,
        "vector": [1.0, i / 40, (i % 5) / 5],
        "source": {"dataset": f"d{i % 2}", "config": "", "url": "", "document": ""},
    }
    for i in range(40)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKMILL_CACHE_DIR", str(tmp_path / "cache"))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:4]), tmp_path / "few.parquet")
    pq.write_table(pa.table({"id": ["row-03", "row-07"]}), tmp_path / "start.parquet")
    return tmp_path


def run(capsys, folder, *words):
    """Run a command in this process; words in capitals are paths. Return (exit code, output, errors)."""
    words = [str(folder / word.lower()) if word.isupper() else word for word in map(str, words)]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    out, err = capsys.readouterr()
    return ended.value.code, out, err


CURATE = (
    "",
    "--filters length,grounded --json",
    "--set grounded=0.1 --set longest=300 --against FEW.PARQUET",
)
DEDUP = (
    "",
    "--mode near --on instruction --threshold 0.5 --ngram 2 --keep longest --seed 3 --json",
    "--mode exact --on context --normalise --skeleton-cap 2 --source-cap 5 --source-column source",
    "--mode exact --on pair --no-normalise --keep first-id",
    "--mode exact --text label --runner native",
    "--mode semantic --threshold 0.99 --embeddings vector",
    "--mode semantic --text text --embedder hash",
)
DECONTAMINATE = (
    "--against FEW.PARQUET --text instruction,context,response --mode 13gram --min-words 6 --frequent 3",
    "--against FEW.PARQUET --mode 8gram50 --share 0.6 --coverage item --json",
    "--against FEW.PARQUET --mode 8gram50 --coverage row --runner native",
    "--against FEW.PARQUET --mode 8gram50 --coverage either",
    "--against FEW.PARQUET --mode decon --threshold 0.7 --parts question,answer",
    "--against FEW.PARQUET --mode exact --keep-benchmark-tasks",
)
SELECT = (
    "--budget 5 --embeddings vector --method k-center --set first=medoid --seed 3 --draws 2 --json",
    "--budget 10% --embeddings vector --id id --tokens n --coverage label,text --start START.PARQUET",
    "--budget 60tok --method random --text text --group-by label --quota equal --embedder hash",
    "--budget 6 --method random --group-by label --quota proportional --embeddings vector",
    "--budget 5 --embeddings vector --parts 2 --runner native --whiten 2",
    "--budget 5 --embeddings vector --project 2",
)
NEEDS = {
    "deita": "--set scores=n",
    "dsir": "--target FEW.PARQUET --text text",
    "perplexity": "--set model=echo:",
    "rds": "--target FEW.PARQUET",
    "score": "--set scores=n",
    "stratified": "--group-by label",
}
METHODS = [
    f"--budget 5 --embeddings vector --method {name} {NEEDS.get(name, '')}"
    for name in SELECTORS.names()
    if name != "ifd"  # the echo finds all answers as easy: test_a_method_that_rejects_every_row_is_named
]


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (command, flags)
        for command, all_flags in (
            ("curate", CURATE),
            ("dedup", DEDUP),
            ("decontaminate", DECONTAMINATE),
            ("select", (*SELECT, *METHODS)),
        )
        for flags in all_flags
    ],
)
def test_every_flag_takes_values_that_work(folder, capsys, command, flags):
    out = "OUT.PARQUET" if command == "select" else "OUT"
    code, shown, err = run(capsys, folder, command, "ROWS.PARQUET", "--out", out, *flags.split())
    assert (code, err) == (0, "")
    if "--json" in flags:
        assert json.loads(shown)
    else:
        assert str(folder / out.lower()) in shown
    if command == "select":
        chosen = pq.read_table(folder / "out.parquet")
        assert chosen.column_names == ["id", "rank", "score"]
        assert 0 < len(chosen) == len(set(chosen["id"].to_pylist()) & {row["id"] for row in ROWS})
    else:
        report = json.loads((folder / "out" / "report.json").read_text())
        assert report["command"] == command
        funnel = report["funnel"]
        assert funnel["in"] == len(ROWS) == funnel["kept"] + sum(funnel["dropped"].values())
        ids = [pq.read_table(folder / "out" / f"{n}.parquet")["id"].to_pylist() for n in ("kept", "dropped")]
        assert sorted(ids[0] + ids[1]) == [row["id"] for row in ROWS]


def test_a_method_that_rejects_every_row_is_named(folder, capsys):
    words = ["--budget", "5", "--embeddings", "vector", "--method", "ifd", "--set", "model=echo:"]
    code, _, err = run(capsys, folder, "select", "ROWS.PARQUET", "--out", "OUT.PARQUET", *words)
    assert code == 1
    assert "--method ifd rejects all 40 rows" in err
    assert not (folder / "out.parquet").exists()


@pytest.mark.parametrize(
    ("command", "tried"),
    [
        ("curate", CURATE),
        ("dedup", DEDUP),
        ("decontaminate", (*DECONTAMINATE, "--build")),  # alone: test_an_index_is_built_alone
        ("select", (*SELECT, *METHODS)),
    ],
)
def test_no_flag_and_no_choice_is_left_out(command, tried):
    words = " ".join(tried).split()
    used = defaultdict(set)
    for flag, following in zip(words, [*words[1:], ""], strict=True):
        used[flag].add(following)
    for option in cli.cli.commands[command].params:
        if not isinstance(option, click.Option) or "--out" in option.opts:
            continue
        assert any(flag in used for flag in option.opts), option.opts
        choices = getattr(option.type, "choices", ())
        assert set(choices) <= set().union(*(used[flag] for flag in option.opts))


def test_numbers_that_may_be_left_out_are_shown_as_numbers(capsys, folder):
    _, shown, _ = run(capsys, folder, "dedup", "--help")
    assert "--threshold X" in shown
    code, _, err = run(capsys, folder, "dedup", "ROWS.PARQUET", "--out", "OUT", "--threshold", "much")
    assert code == 2
    assert "threshold" in err


def test_warnings_are_printed_and_results_are_sources_again(folder, capsys):
    rows = [{"prompt": f"Say {i % 2}, please.", "completion": f"It is {i % 2}</s>"} for i in range(12)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, shown, _ = run(capsys, folder, "curate", "IN.JSONL", "--out", "A")
    assert code == 0
    assert "warning: 12 responses ended in </s>; it is taken off" in shown
    code, shown, _ = run(capsys, folder, "dedup", "A", "--mode", "exact", "--out", "B")
    assert code == 0
    assert "warning: duplicate dropped 10 of 12 rows" in shown
    for source, out in (("B", "C"), ("B/DROPPED.PARQUET", "D")):
        code, shown, err = run(capsys, folder, "curate", source, "--out", out)
        assert (code, err) == (0, "")
    assert pq.read_table(folder / "c" / "kept.parquet")["id"].to_pylist() == ["0", "1"]
    code, _, err = run(capsys, folder, "dedup", "A", "--out", "C")
    assert code == 2
    assert "report.json of curate" in err


def rows_of(folder, name):
    return pq.read_table(folder / f"{name}.parquet")["id"].to_pylist()


@pytest.mark.parametrize("mode", ["exact", "near", "semantic"])
def test_rows_without_what_is_compared_repeat_nobody(tmp_path, mode):
    rows = {
        "id": list("abcdef"),
        "instruction": [f"Question {i}?" for i in range(6)],
        "context": [
            "",
            None,
            "  ",
            "The harbour was built by four men.",
            "",
            "The harbour was built by four men.",
        ],
        "response": [f"answer {i}" for i in range(6)],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    words = [
        "dedup",
        str(tmp_path / "rows.parquet"),
        "--mode",
        mode,
        "--on",
        "context",
        "--out",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, *(["--embedder", "hash"] if mode == "semantic" else [])])
    assert end.value.code == 0
    assert rows_of(tmp_path / "o", "dropped") == ["f"]


def test_foreign_instructions_are_compared_as_they_stand_there(tmp_path):
    rows = {
        "id": list("abc"),
        "instruction": ["Sum up."] * 3,
        "context": ["one", "two", "six"],
        "response": ["r"] * 3,
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    for on, kept in (("instruction", ["a"]), ("pair", ["a", "b", "c"])):
        with pytest.raises(SystemExit):
            cli.main(
                [
                    "dedup",
                    str(tmp_path / "rows.parquet"),
                    "--mode",
                    "exact",
                    "--on",
                    on,
                    "--out",
                    str(tmp_path / on),
                ]
            )
        assert rows_of(tmp_path / on, "kept") == kept


def test_the_placeholder_is_no_word_of_a_pair(tmp_path):
    passage = " ".join(f"w{i}" for i in range(14))
    rows = {
        "instruction": ["please say a b c d"] * 2,
        "context": [passage, passage.replace("w13", "z0")],
        "response": ["r1"] * 2,
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    with pytest.raises(SystemExit):
        cli.main(["dedup", str(tmp_path / "rows.parquet"), "--mode", "near", "--out", str(tmp_path / "o")])
    assert pq.read_table(tmp_path / "o" / "kept.parquet").num_rows == 2, "15 of 19 n-grams are under 0.8"
