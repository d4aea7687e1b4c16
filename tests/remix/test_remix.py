"""Remix end to end on small tables: what enters the corpus, what is refused, equal bytes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskmill.errors import ConfigError, InputError, LicenceUnknown, UsageError
from taskmill.recipes.remix import RemixConfig, remix
from taskmill.record import Dropped, Example
from taskmill.store import parts
from taskmill.synthesize.ctga import Balance
from taskmill.synthesize.declaration import Declaration, OwnTemplate, load_declarations
from taskmill.synthesize.remix import Remix

TOWNS = ["Tarn", "Velm", "Orsk", "Ulva", "Brek", "Sund", "Holt", "Nesby"]


def text_of(i):
    town, year = TOWNS[i % 8], 1900 + i
    return (
        f"In {year}, the harbour of {town} was opened to large ships. The engineer Ida Holm designed its "
        f"lighthouse, which can be seen from the islands. Because the old pier was too short, {town} built a "
        f"second one in order to serve the ferries. The ferry company employs approximately {i + 20} people. "
        "Fishing boats leave the harbour early in the morning."
    )


def rows(count=24):
    return [
        {
            "text": text_of(i),
            "question": f"Which year was the harbour of {TOWNS[i % 8]} opened in?",
            "answers": [str(1900 + i)],
            "title": f"The harbour of {TOWNS[i % 8]}",
            "open": bool(i % 2),
        }
        for i in range(count)
    ]


DECLARATION = """
- name: harbours
  files: harbours.jsonl
  licence: MIT
  split: validation
  passage: "{{ text }}"
  let: {answer: "answers[0]"}
  tasks:
    exqa: {question: question, response: answer}
    ynqa: {question: "'Is the harbour open?'", labels: "'Yes or No'", response: "'Yes' if open else 'No'"}
    qg: {response: question}
  construct: [statements, paraphrases, next_sentence]
  templates:
    - {task: text_gen, name: title, text: "Write about {{ title }}. ||| {{ text }}"}
"""


@pytest.fixture
def folder(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    (tmp_path / "harbours.jsonl").write_text(lines)
    (tmp_path / "harbours.yaml").write_text(DECLARATION)
    return tmp_path


def build(folder, out="run", **settings):
    config = RemixConfig(sources=(str(folder / "harbours.yaml"),), **settings)
    return remix(config, folder / out)


def corpus(folder, out="run"):
    return [row for p in parts(folder / out / "3-ctga" / "kept") for row in pq.read_table(p).to_pylist()]


def corpus_bytes(folder, out):
    return b"".join(p.read_bytes() for p in parts(folder / out / "3-ctga" / "kept"))


def test_rows_become_training_rows_with_their_provenance(folder):
    manifest = build(folder)
    made = corpus(folder)
    assert {r["task"] for r in made} >= {"exqa", "qg", "ynqa", "text_gen", "nli", "te", "sent_comp"}
    assert all(r["licence"] == "MIT" and r["dataset"] == "harbours" for r in made)
    assert all(r["split"] == "validation" and r["templates"] and r["examples"] for r in made)
    for row in made:
        assert row["prompt"].startswith("<|context|>\n")
        assert row["prompt"].endswith("\n<|task|>\n")
        assert row["passage"] in row["prompt"]
        assert row["completion"].count("<|pipe|>") == row["completion"].count("<|task|>") + 1
    assert manifest["corpus"]["task"]["exqa"] == sum(r["task"] == "exqa" for r in made)
    funnel = manifest["funnel"]
    for stage in ("remix", "curate", "ctga"):
        assert funnel[stage]["in"] == funnel[stage]["kept"] + sum(funnel[stage]["dropped"].values())


def test_the_passage_of_a_reversed_template_is_the_placeholder_in_the_response(folder):
    build(folder)
    reversed_rows = [r for r in corpus(folder) if r["task"] == "text_gen"]
    assert reversed_rows
    assert all(r["completion"].endswith("<|pipe|>\n{{context}}") for r in reversed_rows)
    assert all("{{context}}" not in r["completion"].split("<|pipe|>")[0] for r in reversed_rows)


def test_the_corpus_is_the_same_bytes_for_any_number_of_workers(folder):
    build(folder, "one", workers=1)
    build(folder, "three", workers=3)
    assert corpus_bytes(folder, "one") == corpus_bytes(folder, "three")
    build(folder, "other", seed=1)
    assert corpus_bytes(folder, "one") != corpus_bytes(folder, "other")


def test_a_second_call_makes_nothing_anew_and_a_new_cap_only_the_last_stage(folder):
    build(folder)
    stamp = (folder / "run" / "1-remix" / "stage.json").stat().st_mtime_ns
    config = RemixConfig(sources=(str(folder / "harbours.yaml"),), balance=Balance(cap=5))
    manifest = remix(config, folder / "run", update=True)
    assert (folder / "run" / "1-remix" / "stage.json").stat().st_mtime_ns == stamp
    assert max(manifest["corpus"]["task"].values()) <= 5


def test_formats_give_the_same_examples(folder):
    build(folder, "jsonl")
    pq.write_table(pa.Table.from_pylist(rows()), folder / "harbours.parquet")
    text = DECLARATION.replace("harbours.jsonl", "harbours.parquet")
    (folder / "harbours.yaml").write_text(text)
    build(folder, "parquet")
    assert {r["completion"] for r in corpus(folder, "jsonl")} == {
        r["completion"] for r in corpus(folder, "parquet")
    }


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "For research purposes only", "Xyzzy licence 7"])
def test_a_permissive_corpus_admits_no_other_licence(folder, licence):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("licence: MIT", f"licence: {licence}"))
    with pytest.raises(LicenceUnknown, match="harbours"):
        build(folder)
    assert build(folder, allow_licence=(licence,))["exit"]["code"] == 0


def test_a_dataset_without_a_licence_is_refused_unless_allowed_by_name(folder):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("  licence: MIT\n", ""))
    with pytest.raises(LicenceUnknown, match="declares no licence"):
        build(folder, licence="any")
    build(folder, allow_licence=("unknown",))
    assert all(r["licence"] == "" for r in corpus(folder))


def test_errors_name_dataset_key_and_columns(folder):
    def broken(old, new):
        (folder / "harbours.yaml").write_text(DECLARATION.replace(old, new))
        return pytest.raises((ConfigError, InputError, UsageError))

    with broken("question: question", "question: querstion") as error:
        build(folder)
    assert "querstion" in str(error.value)
    assert "harbours" in str(error.value)
    assert "title" in str(error.value)
    with broken("||| {{ text }}", "||| {{ answers[0] }}") as error:
        build(folder)
    assert "does not quote the passage" in str(error.value)
    with broken("name: harbours\n", "name: harbours\n  colour: red\n") as error:
        build(folder)
    assert "colour" in str(error.value)
    with broken("files: harbours.jsonl", "files: nothing-*.jsonl") as error:
        build(folder)
    assert "nothing-" in str(error.value)


def test_a_template_with_an_unknown_column_is_an_error_that_names_it(folder):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("about {{ title }}", "about {{ titel }}"))
    with pytest.raises(ConfigError, match=r"titel.*title"):
        build(folder)


def test_a_task_without_response_or_slot_is_an_error(folder):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("{response: question}", "{question: question}"))
    with pytest.raises(ConfigError, match="qg has no `response`"):
        build(folder)
    (folder / "harbours.yaml").write_text(
        DECLARATION.replace("exqa: {question: question, response: answer}", "exqa: {response: answer}")
    )
    with pytest.raises(ConfigError, match="exqa lacks a slot"):
        build(folder)


def test_a_construction_without_its_columns_is_an_error(folder):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("construct: [", "construct: [choices, "))
    with pytest.raises(ConfigError, match="choices reads 'siblings'"):
        build(folder)


@pytest.mark.parametrize("licence", ["unknown", "unstated", "Banana-1.0"])
def test_no_switch_admits_a_licence_nobody_knows(folder, licence):
    (folder / "harbours.yaml").write_text(DECLARATION.replace("licence: MIT", f"licence: {licence}"))
    for switch in ("permissive", "any"):
        with pytest.raises(LicenceUnknown, match="harbours"):
            build(folder, licence=switch)


def test_a_null_label_drops_its_task_and_keeps_the_rest(folder):
    given = rows(2)
    given[0]["open"] = None
    given[1]["text"] = None
    declaration = load_declarations(folder / "harbours.yaml")[0]
    remixer = Remix(declaration, 0)
    first = list(remixer.examples(given[0], 0))
    assert any(isinstance(o, Example) and o.task == "exqa" for o in first)
    second = list(remixer.examples(given[1], 1))
    assert [o.reason for o in second if isinstance(o, Dropped)] == ["null_text"]
    null_answer = list(remixer.examples({**given[0], "question": None}, 2))
    assert {o.row.task for o in null_answer if isinstance(o, Dropped)} >= {"exqa", "qg"}


def test_user_text_with_markers_and_placeholders_stays_text():
    hostile = "The sign said {{context}} and <|pipe|> and <|task|> in the harbour of Tarn. " + text_of(0)
    declaration = Declaration(
        "hostile",
        ("x.jsonl",),
        "{{ text }}",
        "MIT",
        tasks={"exqa": {"question": "question", "response": "answer"}},
        templates=(OwnTemplate("text_gen", "t", "About {{ question }} ||| {{ text }}"),),
    )
    row = {"text": hostile, "question": "What did the sign say, {{context}} or <|pipe|>?", "answer": "1900"}
    made = [o for o in Remix(declaration, 0).examples(row, 0) if isinstance(o, Example)]
    assert {e.task for e in made} == {"exqa", "text_gen"}
    for example in made:
        assert example.context == hostile
        assert example.instruction.count("{{context}}") == (1 if example.task == "exqa" else 0)


def test_the_catalog_declares_all_task_types_with_open_licences():
    from importlib.resources import files

    from taskmill.export.licences import is_commercial
    from taskmill.tasks import TASKS
    from taskmill.templates import words

    found = load_declarations(Path(str(files("taskmill.templates") / "catalog.yaml")))
    assert all(is_commercial(d.licence) and d.credit for d in found)
    assert {t for d in found for t in d.tasks} | {"topic_class", "wsd"} == set(TASKS.names())
    assert all(len(words.load()[task]["instruction"]) >= 5 for task in TASKS.names())
