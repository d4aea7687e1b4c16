"""The linter lists all faults of all files at once, with file, line and rule; what we ship has none."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from taskmill import cli
from taskmill.errors import ConfigError, InputError
from taskmill.templates.lint import RULES, lint
from taskmill.templates.schema import builtin, load, shipped

HEAD = """\
cluster: pets
labels: [cat or dog]
fields:
  context: {called: text, invertible: true}
  question: {called: question, optional: true}
  options: {called: options}
  answer: {called: answer}
asked: answer
target: "{{ answer }}"
templates:
"""
GOOD = '  - {name: good, input: "{{ context }} {{ question }}"}\n'


def put(folder, name, body, head=HEAD):
    path = folder / name
    path.write_text(head + body, "utf-8")
    return path


def rules(path):
    return [fault.rule for fault in lint(path)]


# each rule, on data like that of public collections (Flan P11)

FAULTY = {
    "unknown-slot": '{name: x, input: "{{ context }} {{ premise }}"}',
    "leaked-target": '{name: x, input: "{{ context }} {{ question }} {{ answer }}"}',
    "options-without-options": '{name: x, input: "{{ context }} Choose from the following.", options: false}',
    "missing-slot": '{name: x, input: "{{ question }}"}',
    "missing-target": '{name: x, input: "{{ context }}", target: "none"}',
    "missing-input": "{name: x, input: Tell me something.}",
    "empty-input": '{name: x, input: ""}',
    "broken-jinja": '{name: x, input: "{{ context "}',
    "unknown-key": '{name: x, input: "{{ context }}", inputs: "twice"}',
    "broken-schema": "{name: x, input: [a, b]}",
    "duplicate-template": '{name: good, input: "Another {{ context }}"}',
    "duplicate-style": '{name: x, input: "{{ context }}: {{ question }}!"}',
    "instance-specific": '{name: x, input: "{{ context }}\\n\\nAnswer in one sentence."}',
    "fused-text": '{name: x, input: "Read this:Tell who is meant in {{ context }}"}',
}


@pytest.mark.parametrize("rule", FAULTY)
def test_each_rule_finds_its_fault_and_names_the_line(tmp_path, rule):
    path = put(tmp_path, "t.yaml", GOOD + f"  - {FAULTY[rule]}\n")
    found = lint(path)
    assert {fault.rule for fault in found} == {rule}
    assert {fault.line for fault in found} == {len(HEAD.splitlines()) + 2}
    assert found[0].file == str(path)
    assert found[0].message


def test_every_rule_is_tried_here():
    elsewhere = {"unreadable", "broken-yaml", "duplicate-cluster"}
    assert set(RULES) == set(FAULTY) | elsewhere


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{{ context }} Pick one of these.", "options-without-options"),
        ("{{ context }} Which of the following holds?", "options-without-options"),
        ("{{ context }} Use the alternatives.", "options-without-options"),
        ("{{ context }} The four options are given.", "instance-specific"),
        ("{{ context }} Is it (A) or (B)?", "instance-specific"),
        ("{{ context }} Say yes or no.", "instance-specific"),
        ("{{ context }} As of 2019, who?", "instance-specific"),
        ("{{ context }} Answer with a single word.", "instance-specific"),
    ],
)
def test_wordings_of_public_collections_that_do_not_hold_everywhere(tmp_path, text, rule):
    path = put(tmp_path, "t.yaml", f'  - {{name: x, input: "{text}", options: false}}\n')
    assert rule in rules(path)


@pytest.mark.parametrize(
    "text",
    [
        "{{ context }} Is it a cat or dog?",  # declared under `labels`
        "{{ context }}\\n{{ options }}\\nChoose one of the options.",
        "{{ context }} Write a sentence about it.",
        "{{ context }}{% if question %} {{ question }}{% endif %}",
    ],
)
def test_wordings_that_hold_everywhere_pass(tmp_path, text):
    assert lint(put(tmp_path, "t.yaml", f'  - {{name: x, input: "{text}"}}\n')) == []


def test_a_leak_behind_logic_is_found(tmp_path):
    text = "{% if answer %}{{ context }}{% endif %}"
    assert "leaked-target" in rules(put(tmp_path, "t.yaml", f'  - {{name: x, input: "{text}"}}\n'))


def test_a_wording_with_options_must_show_them(tmp_path):
    body = '  - {name: x, input: "{{ context }}", options: "{{ context }} now"}\n'
    assert rules(put(tmp_path, "t.yaml", body)) == ["options-without-options"]


def test_an_inverted_template_that_asks_for_what_it_gives_is_found(tmp_path):
    body = '  - {name: x, input: "{{ answer }} {{ context }}", target: "{{ answer }}"}\n'
    assert rules(put(tmp_path, "t.yaml", body)) == ["leaked-target"]
    body = '  - {name: x, input: "{{ answer }}", target: "{{ context }}"}\n'
    assert rules(put(tmp_path, "t.yaml", body)) == []


def test_the_line_of_broken_jinja_is_that_of_the_text(tmp_path):
    body = "  - name: x\n    input: |-\n      {{ context }}\n      {{ question\n"
    (fault,) = lint(put(tmp_path, "t.yaml", body))
    assert (fault.rule, fault.line) == ("broken-jinja", len(HEAD.splitlines()) + 4)


# many at once


def test_a_broken_file_hides_no_fault_of_the_others(tmp_path):
    put(tmp_path, "a.yaml", "  - {name: x, input: '{{ nothing }}'}\n")
    put(tmp_path, "b.yaml", "  - {name: [}\n")
    (tmp_path / "c.yaml").write_bytes(b"cluster: \xff\xfe")
    (tmp_path / "d.yaml").write_text("- only a list\n")
    put(tmp_path, "e.yaml", GOOD + '  - {name: y, input: ""}\n  - {name: z, input: "{{ answer }}"}\n')
    put(tmp_path, "f.yaml", GOOD.replace("good", "other"), HEAD.replace("pets", "fine"))
    found = {(Path(f.file).name, f.rule) for f in lint(tmp_path)}
    assert found == {
        ("a.yaml", "unknown-slot"),
        ("b.yaml", "broken-yaml"),
        ("c.yaml", "unreadable"),
        ("d.yaml", "broken-schema"),
        ("e.yaml", "duplicate-cluster"),
        ("e.yaml", "empty-input"),
        ("e.yaml", "leaked-target"),
        ("e.yaml", "missing-slot"),
    }


def test_two_keys_of_one_name_are_broken_yaml(tmp_path):
    body = "  - {name: x, input: '{{ context }}', input: '{{ question }}'}\n"
    assert rules(put(tmp_path, "t.yaml", body)) == ["broken-yaml"]


def test_repeated_styles_in_lists_are_found(tmp_path):
    path = put(tmp_path, "styles.yaml", 'labels:\n  - "(A) "\n  - "A. "\n  - "(A) "\n', "")
    (fault,) = lint(path)
    assert (fault.rule, "entry 3" in fault.message) == ("duplicate-style", True)
    path = put(tmp_path, "headers.yaml", 'headers: ["Read the talk:Read the dialog"]\n', "")
    assert rules(path) == ["fused-text"]


def test_loading_refuses_what_is_broken_and_names_all_of_it(tmp_path):
    put(tmp_path, "a.yaml", "  - {name: x}\n")
    put(tmp_path, "b.yaml", "  - {name: [}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:11: missing-input.*b\.yaml:\d+: broken-yaml"):
        load(tmp_path)
    with pytest.raises(InputError, match="no YAML file"):
        lint(tmp_path / "nowhere")


# what we ship


def test_what_we_ship_has_no_fault():
    place = files("taskmill.templates")
    assert lint(shipped()) == []
    for name in ("options", "endings", "fewshot", "inversions"):
        assert lint(str(place.joinpath(f"{name}.yaml"))) == [], name


def test_every_cluster_has_ten_templates_of_its_own():
    assert len(builtin()) >= 18
    for cluster in builtin().values():
        assert len(cluster.templates) >= 10, cluster.name


# the command


def run(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    return ended.value.code, capsys.readouterr()


def test_the_command_exits_1_with_faults_and_0_without(tmp_path, capsys):
    good = put(tmp_path, "good.yaml", GOOD)
    code, shown = run(capsys, "lint", "templates", str(good))
    assert (code, shown.out) == (0, "no faults\n")
    bad = put(tmp_path, "bad.yaml", "  - {name: x, input: '{{ nothing }}'}\n", HEAD.replace("pets", "b"))
    code, shown = run(capsys, "lint", "templates", str(bad))
    assert code == 1
    assert shown.out.startswith(f"{bad}:11: unknown-slot: ")
    code, shown = run(capsys, "lint", "templates", str(tmp_path), "--json")
    assert code == 1
    assert [sorted(f) for f in json.loads(shown.out)] == [["file", "line", "message", "rule"]]
    code, _ = run(capsys, "lint", "templates", str(tmp_path / "none.yaml"))
    assert code == 1
