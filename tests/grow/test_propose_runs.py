"""`taskmill grow propose` and `check`, from files to files: offline, resumable, the same bytes each time."""

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.backends import GENERATORS
from taskmill.backends.echo import Echo
from taskmill.budget import BudgetConfig
from taskmill.calls import Completion
from taskmill.cli import main
from taskmill.errors import ConfigError, InputError, UsageError
from taskmill.recipes.check_tasks import check_tasks
from taskmill.recipes.propose import ProposeConfig, TaskModel, estimate, propose
from taskmill.recipes.rate_tasks import read_ratings, write_sheet
from taskmill.recipes.task_filters import Filters
from taskmill.store import parts


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


@pytest.fixture
def sets(tmp_path):
    """Six datasets with cards, two of a family."""
    home = tmp_path / "sets"
    for number, name in enumerate(("films-a", "films-b", "lamps", "plays", "songs", "ships")):
        folder = home / name
        folder.mkdir(parents=True)
        licence = "other" if name == "ships" else "cc-by-4.0"
        card = f"---\nlicense: {licence}\n---\n## Summary\nReviews of {name}.\n"
        (folder / "README.md").write_text(card)
        with (folder / "train.jsonl").open("w") as file:
            for i in range(60):
                row = {
                    "id": f"{name}-{i:04}",
                    "review": f"This is number {i} of {name}, and it is {'good' * (i % 2)} {number}.",
                }
                file.write(json.dumps(row | {"mood": ["sad", "glad"][i % 2]}) + "\n")
    return home


def config(sets, **more):
    return ProposeConfig(sources=(str(sets),), **more)


def test_offline_without_a_model(sets, tmp_path, capsys):
    assert run("grow", "propose", sets, "--instances", 5, "--out", tmp_path / "run", "--json") == 0
    manifest = json.loads(capsys.readouterr().out)
    funnel = manifest["funnel"]["propose"]
    assert funnel == {"in": 12, "kept": 10, "dropped": {"licence": 2}}
    assert manifest["funnel"]["instances"]["kept"] == 50
    assert manifest["calls"]["total"] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "proposals.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert {"task_name", "instruction", "input_fields", "output_field"} <= lines[0].keys()
    kept = pq.read_table(parts(tmp_path / "run" / "1-propose" / "kept")).to_pylist()
    assert {row["id"] for row in kept} == {line["id"] for line in lines}
    credit = json.loads((tmp_path / "run" / "attribution.json").read_text())
    assert {one["dataset"]: one["licence"] for one in credit}["lamps"] == "CC-BY-4.0"
    assert "ships" not in {one["dataset"] for one in credit}
    assert "effective" in (tmp_path / "run" / "report.html").read_text()
    assert run("export", tmp_path / "run", "--format", "messages", "--out", tmp_path / "out.jsonl") == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert "{{" not in first["messages"][0]["content"]


def test_what_the_manifest_says_of_licences_is_what_the_filter_did(sets, tmp_path):
    card = "---\nlicense: mit\nsource_datasets:\n- ships\n---\n## Summary\nSongs of ships.\n"
    (sets / "songs" / "README.md").write_text(card)
    made = propose(config(sets), tmp_path / "run")
    assert made["funnel"]["propose"]["dropped"] == {"licence": 4}
    assert made["licences"]["ships"].startswith("the licence is unknown")
    assert made["licences"]["songs"].endswith("(of what it was made of)")


def test_a_licence_is_given_to_sources_whose_card_names_none(sets, tmp_path):
    (sets / "lamps" / "README.md").write_text("---\nlicense: cc-by-nd-4.0\n---\n## Summary\nLamps.\n")
    made = propose(config(sets, licence="mit"), tmp_path / "run")
    assert made["licences"]["ships"] == "MIT"
    assert made["licences"]["lamps"] == "CC-BY-ND-4.0 forbids changes, and tasks are made of the rows"
    assert made["funnel"]["propose"]["kept"] == 10


def test_a_temperature_of_families_wants_their_cap():
    with pytest.raises(ConfigError, match="give --family-cap too"):
        Filters(family_temperature=2.0)


def test_the_family_cap_is_reported(sets, tmp_path):
    found = propose(config(sets, filters=Filters(family_cap=2)), tmp_path / "run")
    families = found["figures"]["families"]
    assert families["before"] < families["after"] == 4
    assert families["dominant"]["films"] == 0.4
    assert found["funnel"]["propose"]["dropped"] == {"licence": 2, "over_source_cap": 2}


def test_a_model_adds_to_the_rules_and_nothing_is_paid_twice(sets, tmp_path):
    first = propose(config(sets, model=TaskModel(ref="echo:")), tmp_path / "run")
    assert first["calls"] == {"made": 12, "reused": 0, "failed": 0, "total": 12}
    assert first["modes"]["rules"]["kept"] == 10
    assert first["modes"]["aware"] == {"proposed": 12, "kept": 0}
    assert first["figures"]["duplicates"] == {"exact": 24}
    again = propose(config(sets, model=TaskModel(ref="echo:")), tmp_path / "run")
    assert again["calls"]["made"] == 0
    alone = propose(config(sets, model=TaskModel(ref="echo:"), rules=False), tmp_path / "alone")
    assert (alone["modes"]["aware"]["kept"], "rules" in alone["modes"]) == (10, False)


def test_a_budget_stops_cleanly_and_the_run_goes_on(sets, tmp_path):
    limited = config(sets, model=TaskModel(ref="echo:"), budget=BudgetConfig(max_calls=5))
    short = propose(limited, tmp_path / "run")
    assert (short["exit"]["code"], short["calls"]["total"]) == (3, 5)
    assert "budget reached" in short["exit"]["reason"]
    done = propose(config(sets, model=TaskModel(ref="echo:")), tmp_path / "run")
    assert (done["exit"]["code"], done["calls"]["made"], done["calls"]["reused"]) == (0, 7, 5)


def test_a_killed_run_makes_the_calls_that_are_left(sets, tmp_path):
    class Dying(Echo):
        def generate(self, requests):
            for number, completion in enumerate(super().generate(requests)):
                if number == 4:
                    raise KeyboardInterrupt
                yield completion

    GENERATORS.register("dying", lambda name, revision, config: Dying(name))
    try:
        with pytest.raises(KeyboardInterrupt):
            propose(config(sets, model=TaskModel(ref="dying:")), tmp_path / "run")
        GENERATORS.unregister("dying")
        GENERATORS.register("dying", lambda name, revision, config: Echo(name))
        done = propose(config(sets, model=TaskModel(ref="dying:")), tmp_path / "run")
    finally:
        GENERATORS.unregister("dying")
    assert (done["calls"]["made"], done["calls"]["reused"]) == (8, 4)
    propose(config(sets, model=TaskModel(ref="echo:")), tmp_path / "whole")
    kept = [(tmp_path / name / "proposals.jsonl").read_bytes() for name in ("run", "whole")]
    assert kept[0] == kept[1]


def asked(instruction, output, *inputs):
    return {
        "task_name": "t",
        "instruction": instruction,
        "input_fields": list(inputs) or "review",
        "output_field": output,
    }


class Sloppy(Echo):
    """Replies as small models do: cut off, in Python's spelling, with faults of every kind."""

    def generate(self, requests):
        replies = [
            str({"task1": {**asked("Tell the mood.", ["mood"]), "more": None}})[:-1] + ", 'task2'",
            json.dumps({"task1": asked("Tell the mood and id.", ["mood", "id"])}),
            json.dumps({"task1": asked("Tell the id.", "id")}),
            "I am sorry, I cannot do that.",
            json.dumps({"task1": asked("Tell it.", "mood", "text")}),
            "",
        ]
        for number, request in enumerate(requests):
            yield Completion(request.key, replies[number % 6], "stop", 9, 9)


def test_replies_with_faults_are_dropped_with_their_reasons(sets, tmp_path):
    GENERATORS.register("sloppy", lambda name, revision, config: Sloppy(name))
    try:
        found = propose(
            config(sets, model=TaskModel(ref="sloppy:"), rules=False, modes=("unaware",)), tmp_path / "run"
        )
    finally:
        GENERATORS.unregister("sloppy")
    funnel = found["funnel"]["propose"]
    assert funnel["kept"] == 1
    assert funnel["dropped"] == {
        "empty_reply": 1, "metadata_only_target": 1, "multi_output": 1, "parse": 2, "unknown_field": 1,
    }  # fmt: skip
    assert funnel["in"] == 7


def test_the_dry_run_is_close_to_what_is_spent(sets, tmp_path):
    class Counting(Echo):
        def generate(self, requests):
            from taskmill.ingest import count_tokens

            for request in requests:
                text = request.payload.sample()
                asked = sum(count_tokens(content) for _, content in request.messages)
                yield Completion(request.key, text, "stop", asked, count_tokens(text))

    (tmp_path / "prices.yaml").write_text("counting:m: {prompt: 1.0, completion: 2.0}\n")
    GENERATORS.register("counting", lambda name, revision, config: Counting(name))
    try:
        own = config(
            sets,
            model=TaskModel(ref="counting:m"),
            budget=BudgetConfig(prices=str(tmp_path / "prices.yaml")),
        )
        said = estimate(own)
        spent = propose(own, tmp_path / "run")
    finally:
        GENERATORS.unregister("counting")
    assert said["calls"] == spent["calls"]["total"] == 12
    assert said["cost"] == pytest.approx(spent["cost"], rel=0.1)
    assert said["prompt_tokens"] == pytest.approx(spent["tokens"]["prompt"], rel=0.1)


def test_two_hash_seeds_give_the_same_bytes(sets, tmp_path):
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "taskmill", "grow", "propose", str(sets), "--model", "echo:"]
        command += ["--instances", "3", "--out", str(tmp_path / seed / "run")]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
    names = ["proposals.jsonl", "metadata.jsonl", "attribution.json"]
    names += [
        f"{stage}/{part}/part-00000.parquet"
        for stage in ("1-propose", "2-instances")
        for part in ("kept", "dropped")
    ]
    for name in names:
        one, two = ((tmp_path / seed / "run" / name).read_bytes() for seed in ("1", "2"))
        assert one == two, name


def test_configurations_that_cannot_work_are_refused(sets, tmp_path):
    with pytest.raises(UsageError, match="no source is given"):
        propose(ProposeConfig(), tmp_path / "run")
    with pytest.raises(ConfigError, match="--no-rules needs a model"):
        propose(config(sets, rules=False), tmp_path / "run")
    with pytest.raises(InputError, match="no file or folder"):
        propose(ProposeConfig(sources=(str(tmp_path / "none"),)), tmp_path / "run")
    assert run("grow", "propose", sets / "none", sets / "lamps", "--out", tmp_path / "two") == 0
    assert run("grow", "propose", sets / "ships", "--out", tmp_path / "other") == 3


PROPOSALS = [
    asked("Tell the mood of the review.", ["mood"]),
    asked("Tell the mood of the review.", ["mood"]),
    asked("tell the MOOD of the review", "mood"),
    asked("Tell the mood and the id.", ["mood", "id"]),
    asked("Say the length.", "length"),
    asked("Write a review of this mood.", "review", "mood", "review"),
]


def test_proposals_made_elsewhere_are_checked(sets, tmp_path, capsys):
    path = tmp_path / "proposals.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in PROPOSALS) + '{"task_name": "cut", "instru\n\n')
    assert run("grow", "check", path, "--out", tmp_path / "bare", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["in"], found["kept"]) == (7, 2)
    assert found["dropped"] == {"duplicate": 2, "multi-output": 1, "overlap": 1, "parse": 1}
    assert found["duplicates"] == {"exact": 1, "normalised": 1}
    assert run("grow", "check", path, "--data", sets / "lamps", "--out", tmp_path / "data", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dropped"] == {
        "duplicate": 2,
        "multi-output": 1,
        "overlap": 1,
        "parse": 1,
        "unknown-field": 1,
    }
    kept = pq.read_table(tmp_path / "data" / "kept.parquet").to_pylist()
    assert [row["labels"] for row in kept] == [["glad", "sad"]]
    lost = pq.read_table(tmp_path / "data" / "dropped.parquet").to_pylist()
    assert len(lost) == 6
    assert all(row["detail"] for row in lost)


def test_declared_fields_and_whole_replies_are_understood(tmp_path):
    path = tmp_path / "p.jsonl"
    own = PROPOSALS[4] | {"fields": ["review", "mood"]}
    reply = {"task1": PROPOSALS[0], "task2": PROPOSALS[5] | {"input_fields": ["mood"]}}
    path.write_text(
        json.dumps(own) + "\n" + json.dumps(reply) + "\n" + str(reply).replace("review", "text") + "\n7\n"
    )
    found = check_tasks(str(path), tmp_path / "out", Filters())
    assert (found["in"], found["kept"]) == (6, 4)
    assert found["dropped"] == {"schema": 1, "unknown-field": 1}
    with pytest.raises(InputError, match="there is no file"):
        check_tasks(str(tmp_path / "gone.jsonl"), tmp_path / "out2", Filters())
    with pytest.raises(UsageError):
        check_tasks(str(path), tmp_path, Filters())


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "no column 'rating'"), (b"id;rating\n1;correct\n", "no column"), (b"PAR1\x84", "no CSV in UTF-8")],
)
def test_what_is_no_sheet_is_refused(data, said, tmp_path):
    (tmp_path / "sheet.csv").write_bytes(data)
    with pytest.raises(InputError, match=said):
        read_ratings(str(tmp_path / "sheet.csv"))


def checked(path, out, **more):
    found = check_tasks(str(path), out, Filters(), **more)
    assert found["in"] == found["kept"] + sum(found["dropped"].values())
    return found


def test_the_form_of_a_file_is_told_by_what_is_in_it(tmp_path):
    listed = [asked(f"Write number {i}, {'x' * 90}.", f"field{i}") for i in range(800)]
    lines = "".join(json.dumps(one) + "\n" for one in listed)
    forms = {
        "lines.json": lines,
        "list.jsonl": json.dumps(listed),
        "pretty.jsonl": json.dumps(listed, indent=1),
        "named.jsonl": json.dumps({f"task{i}": one for i, one in enumerate(listed)}),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert checked(tmp_path / name, tmp_path / f"{name}.out")["kept"] == 800, name
    as_table(listed, tmp_path / "table.parquet")
    assert checked(tmp_path / "table.parquet", tmp_path / "out")["kept"] == 800
    same = [(tmp_path / f"{n}.out" / "kept.parquet").read_bytes() for n in ("lines.json", "list.jsonl")]
    assert same[0] == same[1]


def as_table(listed, path):
    """Write proposals as pandas does: large strings, names as a dictionary, output fields as a list."""
    columns = {
        "task_name": pa.array([one["task_name"] for one in listed]).dictionary_encode(),
        "instruction": pa.array([one["instruction"] for one in listed], pa.large_string()),
        "input_fields": pa.array([one["input_fields"] for one in listed], pa.large_list(pa.large_string())),
        "output_field": pa.array([[one["output_field"]] for one in listed]),
    }
    pq.write_table(pa.table(columns), path)


def test_a_file_that_is_no_proposals_is_refused_or_its_lines_dropped(tmp_path):
    good = json.dumps(asked("Tell the mood.", "mood"))
    whole = json.dumps([asked(f"Write {i}.", "mood") for i in range(2000)])
    refused = {
        "cut.json": (whole[:-40].encode(), "no whole JSON; mend"),
        "table.csv": (b"task_name,instruction\n", "write JSON Lines"),
        "latin.jsonl": (good.encode() + b"\n\xe9\n", "line 2: no UTF-8"),
        "packed.jsonl": (b"\x1f\x8b\x08\x00", "line 1: no UTF-8"),
    }
    for name, (data, said) in refused.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=said):
            check_tasks(str(tmp_path / name), tmp_path / "out", Filters())
    odd = [good, "[" * 100_000, asked("Name it.\u2028Then stop.", "mood"), asked("Half HALF.", "mood")]
    text = "\n".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in odd)
    (tmp_path / "odd.jsonl").write_text(text.replace("HALF", "\\ud83d"), "utf-8")
    found = checked(tmp_path / "odd.jsonl", tmp_path / "out")
    assert (found["kept"], found["dropped"]) == (3, {"parse": 1})
    with pytest.raises(ConfigError, match="near: expected a share"):
        Filters(near=0.0)


def test_instructions_and_triples_are_counted_over_all_that_was_proposed(tmp_path):
    listed = [
        asked(f"Do {i % 7}.", ["mood", "id"][: 1 + i % 2], f"f{i % 5}") | {"task_name": f"set{i % 3}"}
        for i in range(200)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in listed))
    found = checked(tmp_path / "p.jsonl", tmp_path / "out")
    triples = [(one["task_name"], *one["input_fields"], *one["output_field"]) for one in listed]
    assert found["distinct_instructions"] == len({one["instruction"] for one in listed})
    assert found["duplicate_triples"] == len(triples) - len(set(triples))
    assert found["dropped"]["multi-output"] == 100


def test_a_dataset_is_known_by_the_name_of_its_file(sets, tmp_path):
    rows = [{"review": f"It is {i}, and {'good' * (i % 2)}.", "mood": "ab"[i % 2]} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "seats_train.parquet")
    one = asked("Tell the mood.", "mood") | {"dataset": "seats_train"}
    (tmp_path / "p.jsonl").write_text(json.dumps(one) + "\n")
    found = checked(tmp_path / "p.jsonl", tmp_path / "out", data=[str(tmp_path / "seats_train.parquet")])
    assert found["kept"] == 1


def test_the_order_of_proposals_changes_nothing(tmp_path):
    listed = [
        PROPOSALS[i % 6] | {"instruction": f"{PROPOSALS[i % 6]['instruction']} {'.' * (i % 4)}"}
        for i in range(40)
    ]
    results = []
    for name, own in (("a", listed), ("b", listed[::-1])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in own))
        check_tasks(str(path), tmp_path / name, Filters())
        results.append([(tmp_path / name / f).read_bytes() for f in ("proposals.jsonl", "dropped.parquet")])
    assert results[0] == results[1]


def test_a_sheet_is_written_rated_and_read(sets, tmp_path, capsys):
    propose(config(sets), tmp_path / "run")
    assert write_sheet(str(tmp_path / "run"), str(tmp_path / "sheet.html"), 4) == 4
    assert "☐ bad input" in (tmp_path / "sheet.html").read_text()
    assert run("grow", "rate", tmp_path / "run", "--out", tmp_path / "sheet.csv", "-n", 8) == 0
    with (tmp_path / "sheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    words = ["correct"] * 5 + ["bad_output", "Bad Input", ""]
    with (tmp_path / "sheet.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"rating": word} for row, word in zip(rows, words, strict=True))
    found = read_ratings(str(tmp_path / "sheet.csv"))
    assert (found["rated"], found["unrated"]) == (7, 1)
    share = found["shares"]["correct"]
    # Wilson's interval of 5 of 7 at 95 %, from the formula (Wilson 1927).
    assert (share["low"], share["high"]) == (pytest.approx(0.3589, abs=1e-4), pytest.approx(0.9178, abs=1e-4))
    (tmp_path / "bad.csv").write_text("rating\nfine\n")
    with pytest.raises(InputError, match="line 2: 'fine' is none of correct"):
        read_ratings(str(tmp_path / "bad.csv"))
