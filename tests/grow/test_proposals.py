"""Proposals: what a reply holds, what is wrong with a task, what is the same task twice."""

import json
import random
import re
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.export.terms import LicencePolicy, attribution, spdx, terms
from taskmill.ingest.metadata import metadata_of
from taskmill.record import DatasetMeta, Dropped, FieldMeta, Reason
from taskmill.synthesize.families import allowed, capped, effective, family_of
from taskmill.synthesize.field_rules import propose_by_rule
from taskmill.synthesize.proposals import PROPOSAL_SCHEMA, Proposal, from_row, read_proposal, to_row
from taskmill.synthesize.salvage import LONGEST, salvage
from taskmill.synthesize.task_checks import check, duplicates, triples
from taskmill.synthesize.task_evidence import judge
from taskmill.synthesize.task_requests import grammar_of

TASKS = {
    f"task{i}": {
        "task_name": f"näme {i}",
        "instruction": f'Say the {i}th {{thing}}, \\"really\\" — [now].',
        "input_fields": ["a", "b"],
        "output_field": "c",
    }
    for i in range(1, 4)
}


def test_a_reply_cut_at_any_byte_keeps_its_whole_tasks():
    for reply in (json.dumps(TASKS), json.dumps(TASKS, indent=1, ensure_ascii=False), str(TASKS)):
        data = reply.encode()
        ends = [m.end() for m in re.finditer(rb"['\"]c['\"]\s*\}", data)]
        assert len(ends) == 3
        for cut in range(len(data) + 1):
            found, torn = salvage(data[:cut].decode("utf-8", "ignore"))
            whole = sum(end <= cut for end in ends)
            assert [key for key, _ in found] == [f"task{i + 1}" for i in range(whole)], cut
            assert [one["input_fields"] for _, one in found] == [["a", "b"]] * whole
            started = data[:cut].count(b"instruction")
            assert torn or started == whole, cut


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (
            "Sure!\n```json\n{'t': {'instruction': 'x', 'input_fields': 'a', 'output_field': ['b'],},}\n```",
            "x",
        ),
        ('{"instruction": "x", "input_fields": ["a"], "output_field": "b", "multi": None, "ok": True}', "x"),
        ('[{"instruction": "x", "input_fields": ["a"], "output_field": "b"}]', "x"),
        (
            "{'one': {'instruction': 'the author's view', 'input_fields': ['a'], 'output_field': 'b'}}",
            "the author's view",
        ),
        ('{"tasks": [{"instruction": "x", "input_fields": ["a"], "output_field": "b"}]} trailing }', "x"),
        ("{“instruction”: “x”, “input_fields”: [“a”], “output_field”: “b”}", "x"),
        ('{"instruction": "x\\u00e9\\n", "input_fields": ["a"], "output_field": "b"}', "xé"),
    ],
)
def test_replies_in_other_spellings_are_read(reply, wanted):
    ((_, task),) = salvage(reply).tasks
    found = read_proposal(task)
    assert (found.instruction, found.input_fields, found.output_field) == (wanted, ("a",), "b")


@given(st.text(max_size=300))
def test_any_text_is_salvaged_without_an_error(text):
    assert salvage(text).tasks == [] or "instruction" in text
    salvage('{"task1": {"instruction": "' + text + '", "input_fields": ["a"]}')


def test_escaped_emoji_are_whole_and_half_of_one_can_be_written():
    (task,) = salvage(r"{'instruction': 'Rate it \ud83d\ude00.', 'note': '\ud83d'}").tasks
    assert task[1]["instruction"] == "Rate it 😀."
    read = read_proposal({"instruction": "Half \ud83d", "input_fields": ["a\ud800"], "output_field": "b"})
    assert (read.instruction, read.input_fields) == ("Half ?", ("a?",))


def test_of_a_reply_too_long_to_read_the_rest_is_known_to_be_lost():
    one = '{"instruction": "Do.", "input_fields": ["a"], "output_field": "b"}'
    assert not salvage(one).torn
    assert salvage(one + " " * LONGEST + one).torn


def test_deep_garbage_ends():
    assert salvage("{" * 3000 + "[" * 3000).tasks == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input_fields": ["a"], "output_field": "b"}, Reason.SCHEMA),
        ({"instruction": 3, "input_fields": ["a"], "output_field": "b"}, Reason.SCHEMA),
        ({"instruction": "x", "input_fields": [1], "output_field": "b"}, Reason.SCHEMA),
        ({"instruction": "x", "output_field": "b"}, Reason.SCHEMA),
        ({"instruction": " ", "input_fields": ["a"], "output_field": "b"}, Reason.EMPTY),
        ({"instruction": "x", "input_fields": [], "output_field": "b"}, Reason.EMPTY),
        ({"instruction": "x", "input_fields": ["a"], "output_field": []}, Reason.EMPTY),
        ({"instruction": "x", "input_fields": ["a"], "output_field": ""}, Reason.EMPTY),
        ({"instruction": "x", "input_fields": ["a"], "output_field": ["b", "c"]}, Reason.MULTI_OUTPUT),
    ],
)
def test_what_is_no_task_has_its_reason(row, reason):
    found = read_proposal({"task_name": "t", **row})
    assert isinstance(found, Dropped)
    assert found.reason == reason


def test_a_proposal_is_written_and_read_back():
    one = Proposal("d", "c", "t", "Do x.", ("a", "b.c[0]"), "y", ("no", "yes"), "aware", "m", "k")
    assert from_row(to_row(one)) == one
    assert read_proposal(to_row(one)) == one
    assert set(to_row(one)) == set(PROPOSAL_SCHEMA.names)


META = DatasetMeta(
    "quiz",
    fields=(
        FieldMeta("question", "text"),
        FieldMeta("answer", "text"),
        FieldMeta("choices", "list<text>"),
        FieldMeta("answers", "struct<text: list<text>, start: list<int>>"),
        FieldMeta("topic", "text", ("art", "sport")),
        FieldMeta("key", "text", hidden="hashes or uuids"),
        FieldMeta("page_url", "text"),
        FieldMeta("evidence", "text"),
    ),
    samples=(json.dumps({"question": "Which of the seven hills of Rome is the highest of them all?"}),),
)


def task(instruction="Answer the question.", inputs=("question",), output="answer", **more):
    return Proposal("quiz", "", "t", instruction, tuple(inputs), output, **more)


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        (task(), None),
        (task(inputs=("question", "evidence")), None),
        (task(output="answers.text[0]"), None),
        (task(output="answer_text"), Reason.UNKNOWN_FIELD),
        (task(inputs=("questions",)), Reason.UNKNOWN_FIELD),
        (task(inputs=("question", "answer")), Reason.OVERLAP),
        (task(inputs=("question", "answers"), output="answers.text[0]"), Reason.OVERLAP),
        (task(inputs=("answers.start",), output="answers.text"), None),
        (task(output="key"), Reason.METADATA_TARGET),
        (task(output="page_url"), Reason.METADATA_TARGET),
        (task(inputs=("page_url",)), Reason.METADATA_TARGET),
        (task("Pick the right one of the given options."), Reason.MISSING_OPTIONS),
        (task("Which of the following answers the question?"), Reason.MISSING_OPTIONS),
        (task("Pick one of the given options.", ("question", "choices")), None),
        (task("Choose among the options: art, sport.", output="topic"), None),
        (task("Explain how stock options work."), None),
        (task("Tell which of the seven hills of Rome is meant."), Reason.INSTANCE_WORDING),
        (task('Answer "How high is that hill there?" for me.'), Reason.INSTANCE_WORDING),
        (task('Say "art" or "sport" for the topic.', output="topic"), None),
    ],
)
def test_each_fault_of_a_task_has_its_reason(proposal, reason):
    found = check(proposal, META)
    assert (found.reason if found else None) == reason, found


def test_what_needs_no_data_is_checked_without():
    assert check(task(output="anything")) is None
    assert check(task(inputs=("answer",))).reason == Reason.OVERLAP
    assert check(task(output="repo_name")).reason == Reason.METADATA_TARGET
    assert check(task(output="side")) is None
    assert check(task(output="candidate")) is None


def normal(text):
    return " ".join(re.findall(r"\w+", text.casefold()))


def brute_force(tasks, near=0.8):
    """The definition, without indexes: each task against all that stay before it, level by level."""
    order = sorted(range(len(tasks)), key=lambda i: (tasks[i].id, i))
    where = [(t.dataset, tuple(sorted(t.input_fields)), t.output_field) for t in tasks]
    level = {}
    for name, same in (
        ("exact", lambda a, b: a == b),
        ("normalised", lambda a, b: normal(a) == normal(b)),
        ("near", lambda a, b: jaccard(a, b) >= near),
    ):
        stay = []
        for i in order:
            if i in level:
                continue
            if any(where[i] == where[j] and same(tasks[i].instruction, tasks[j].instruction) for j in stay):
                level[i] = name
            else:
                stay.append(i)
    return level


def jaccard(one, other):
    a, b = set(normal(one).split()), set(normal(other).split())
    return len(a & b) / len(a | b) if a | b else 1.0


WORDS = ["Read", "the", "story", "and", "name", "its", "hero", "in", "one", "short", "word", "please"]
VOCABULARY = [f"word{i}" for i in range(40)]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=4, max_size=12, unique=True).map(" ".join)
SPELLED = st.tuples(SENTENCES, st.sampled_from(["{}", "{}.", "{}!", " {}", "({})"])).map(
    lambda p: p[1].format(p[0])
)


@given(st.lists(st.tuples(SPELLED, st.sampled_from("xy"), st.booleans()), max_size=25))
def test_duplicates_are_those_of_a_brute_force_search(listed):
    tasks = [
        Proposal("d", "", "", text.lower() if low else text, (field,), "out") for text, field, low in listed
    ]
    wanted = brute_force(tasks)
    found = {i: gone.detail.partition(":")[0] for i, (_, gone) in enumerate(duplicates(tasks)) if gone}
    assert found == wanted


def test_of_thousands_all_that_are_near_are_found():
    rng = random.Random(5)
    sentences = [rng.sample(VOCABULARY, rng.randint(5, 14)) for _ in range(60)]
    tasks = []
    for _ in range(1000):
        words = list(rng.choice(sentences))
        for _ in range(rng.randint(0, 2)):
            words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
        tasks.append(Proposal("d", "", "", " ".join(words), ("a",), "b"))
    found = {i: gone.detail.partition(":")[0] for i, (_, gone) in enumerate(duplicates(tasks)) if gone}
    assert found == brute_force(tasks)
    assert Counter(found.values())["near"] > 100


def test_planted_duplicates_are_counted():
    base = [
        Proposal("", "", f"set{i}", f"Do number {i} with {WORDS[i % 12]} and {i * 7}.", ("a",), "b")
        for i in range(50)
    ]
    exact = base[:9]
    spelled = [Proposal("", "", "other", one.instruction.upper() + "!", ("a",), "b") for one in base[10:17]]
    long = "Given the passage and a question about it write the answer that a careful reader of it would give"
    near = [Proposal("", "", "", long + more, ("a", "c"), "b") for more in ("", " now", " here")]
    everything = base + exact + spelled + near
    gone = [found for _, found in duplicates(everything) if found]
    levels = Counter(found.detail.partition(":")[0] for found in gone)
    assert levels == {"exact": 9, "normalised": 7, "near": 2}
    counted = triples(everything)
    assert counted["distinct_instructions"] == len({t.instruction for t in everything})
    keys = [(t.key, t.input_fields, t.output_field) for t in everything]
    assert counted["duplicate_triples"] == sum(
        any(keys[i] == keys[j] for j in range(i)) for i in range(len(keys))
    )


def test_data_under_two_names_is_one_and_two_datasets_are_two():
    one, two = (Proposal(name, "", "t", "Answer.", ("a",), "b") for name in ("x", "y"))
    assert [gone for _, gone in duplicates([one, two]) if gone] == []
    assert len([gone for _, gone in duplicates([one, two], {"x": "same", "y": "same"}) if gone]) == 1


def evidence(output, inputs=("text",), listed=(), **more):
    rows = list(listed)
    meta = metadata_of("d", rows)
    (found,) = judge([Proposal("d", "", "t", "Do.", inputs, output, **more)], meta, [("", rows)])
    return found


def test_rows_speak_against_tasks():
    base = [
        {"text": f"the {WORDS[i % 12]} of {i}", "n": i, "kind": ["cat", "dog"][i % 2]} for i in range(100)
    ]
    assert evidence("kind", listed=base).labels == ("cat", "dog")
    assert evidence("gone", listed=base).reason == Reason.EMPTY
    same = [{**row, "kind": "cat" if i else "dog"} for i, row in enumerate(base)]
    assert evidence("kind", listed=same).reason == Reason.CONSTANT_OUTPUT
    said = [{**row, "kind": row["text"].split()[1]} for row in base]
    found = evidence("kind", listed=said)
    assert found.reason == Reason.LEAK
    assert found.score > 0.9
    asked = [{**row, "question": "Which word comes second?"} for row in said]
    assert isinstance(evidence("kind", ("text", "question"), asked), Proposal)
    coded = [{**row, "code": row["kind"][0]} for row in base]
    assert evidence("kind", ("text", "code"), coded).reason == Reason.LEAK
    numbered = [{**row, "class": i % 3} for i, row in enumerate(base)]
    assert evidence("class", listed=numbered).reason == Reason.METADATA_TARGET
    stars = [{**row, "stars": i % 5} for i, row in enumerate(base)]
    assert evidence("stars", listed=stars).labels == ("0", "1", "2", "3", "4")
    mixed = [{**row, "kind": ["Cat", "cat", "cat ", "dog"][i % 4]} for i, row in enumerate(base)]
    assert evidence("kind", listed=mixed).labels == ("cat", "dog")


def test_a_small_lopsided_set_is_lopsided():
    rows = [{"text": f"t{i}", "kind": "no" if i else "yes"} for i in range(40)]
    assert evidence("kind", listed=rows).reason == Reason.CONSTANT_OUTPUT


def test_families():
    assert family_of("p3-boolq:yes") == family_of("p3_imdb") == "p3"
    assert family_of("owner/p3") == "p3"
    assert family_of("x", DatasetMeta("x", lineage=("squad",))) == "squad"
    assert effective({"a": 5, "b": 5}) == 2
    assert effective({"a": 9, "b": 1}) == pytest.approx(1 / (0.81 + 0.01))
    assert allowed({"a": 100, "b": 10, "c": 1}, 10, 0) == {"a": 10, "b": 10, "c": 1}
    assert allowed({"a": 100, "b": 10, "c": 1}, 10, 1) == {"a": 10, "b": 1, "c": 1}
    assert allowed({"a": 100, "b": 10, "c": 1}, 0, 1) == {"a": 100, "b": 10, "c": 1}


def test_a_cap_raises_the_effective_number_of_families_whatever_the_order():
    tasks = [Proposal("p3", "", "", f"t{i}", ("a",), "b") for i in range(80)]
    tasks += [Proposal(f"set{i}", "", "", "t", ("a",), "b") for i in range(8)]
    families = {one.key: family_of(one.key) if one.key == "p3" else one.key for one in tasks}
    kept = [one for one in capped(tasks, families, 4) if isinstance(one, Proposal)]
    before, after = (effective(Counter(families[t.key] for t in some)) for some in (tasks, kept))
    assert before < 1.3
    assert after > 5.9
    again = [one for one in capped(tasks[::-1], families, 4) if isinstance(one, Proposal)]
    assert {t.id for t in again} == {t.id for t in kept}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("apache-2.0", "Apache-2.0"), ("Apache License 2.0", "Apache-2.0"), ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
        ("CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"), ("Creative Commons Attribution 4.0", "CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by-nd/4.0/", "CC-BY-ND-4.0"), ("cc0-1.0", "CC0-1.0"),
        ("odbl", "ODbL-1.0"), ("The MIT License", "MIT"), ("our own terms", "our own terms"),
    ],
)  # fmt: skip
def test_licences_have_spdx_names(name, wanted):
    assert spdx(name) == wanted


@pytest.mark.parametrize(
    ("licence", "any_use", "commercial"),
    [
        ("mit", True, True),
        ("cc-by-nc-4.0", True, False),
        ("cc-by-nd-4.0", False, False),
        ("cc-by-nc-nd-3.0", False, False),
        ("cc-by-sa-4.0", True, True),
        ("cc-by-sa-4.0 AND cc-by-nc-4.0", True, False),
        ("mit AND other", False, False),
        ("", False, False),
        ("other", False, False),
        ("unknown", False, False),
        ("MIT (repository); data: unstated", False, False),
        ("cc-by-nc-nd", False, False),
        ("CC BY-ND", False, False),
        ("cc-by-4.0 custom", False, False),
        ("mit (non-commercial)", True, False),
        ("unstated (non-commercial)", False, False),
        ("for research only", False, False),
        ("all rights reserved", False, False),
        ("see the research paper", False, False),
    ],
)
def test_the_licence_policy(licence, any_use, commercial):
    assert LicencePolicy().decide(licence).admitted is any_use
    assert LicencePolicy("commercial").decide(licence).admitted is commercial


def test_what_is_unknown_is_allowed_only_where_it_forbids_nothing():
    said = "for research, no commercial use"
    unknown, named = (LicencePolicy("commercial", allow=(name,)) for name in ("unknown", said))
    assert unknown.decide("own terms").admitted
    assert LicencePolicy(allow=("unknown",)).decide(said).admitted
    assert named.decide(said).admitted
    for refused, why in ((said, "forbids commercial use"), ("no derivatives", "forbids changes")):
        assert why in unknown.decide(refused).why
        assert not unknown.decide(refused).admitted


def test_a_policy_can_be_told_names_and_looks_at_the_lineage():
    assert LicencePolicy(allow=("unknown",)).decide("").admitted
    assert not LicencePolicy(allow=("mit",), deny=("MIT",)).decide("mit").admitted
    assert not LicencePolicy("commercial").decide("mit", ["cc-by-nc-4.0"]).admitted
    own = DatasetMeta("mine", role="own")
    assert LicencePolicy("commercial").about(own).admitted
    assert not LicencePolicy().about(DatasetMeta("mine")).admitted
    made = DatasetMeta("new", licence="mit", lineage=("old",))
    assert not LicencePolicy().about(made, {"old": "cc-by-nd-4.0"}).admitted
    assert terms("cc-by-sa-4.0").share_alike
    (credit,) = attribution([made, own], {"new": 3})
    assert (credit["dataset"], credit["licence"], credit["tasks"]) == ("new", "MIT", 3)


def test_the_rules_use_own_words_and_fields_that_exist():
    rows = [
        {"premise": f"p {i}", "hypothesis": f"h {i}", "label": ["entailment", "neutral"][i % 2]}
        for i in range(40)
    ]
    nli = propose_by_rule(metadata_of("nli", rows))
    assert {p.task_name for p in nli} == {"entailment", "write_second"}
    long = " ".join(WORDS) * 5
    quiz = [
        {
            "context": f"{long} {i}",
            "question": f"Who is {i}?",
            "answers": {"text": [f"hero {i}"], "start": [1]},
        }
        for i in range(40)
    ]
    asked = propose_by_rule(metadata_of("quiz", quiz))
    assert {(p.task_name, p.output_field) for p in asked} == {
        ("extractive_qa", "answers.text[0]"),
        ("question_generation", "question"),
    }
    iris = [
        {"petal": i / 7, "sepal": i / 3, "stem": i, "species": ["setosa", "other"][i % 2]} for i in range(40)
    ]
    assert [p.output_field for p in propose_by_rule(metadata_of("iris", iris))] == ["species"]
    for proposal in [*nli, *asked]:
        assert "{{" not in proposal.instruction
    assert propose_by_rule(metadata_of("one", [{"text": "a"}] * 9)) == []


def test_the_grammar_names_the_fields():
    fields = [FieldMeta('a "b"', "text"), FieldMeta("c", "text"), FieldMeta("é", "text")]
    rules = dict(line.split(" ::= ", 1) for line in grammar_of(fields, 2).splitlines())
    assert (rules["f0"], rules["f2"]) == (r'"\"a \\\"b\\\"\""', r'"\"é\""')
    assert [rules[f"o{i}"] for i in range(3)] == ["f1 | f2", "f0 | f2", "f0 | f1"], "no output is an input"
    assert rules["root"].endswith('task (", " task){0,1} "]}"')
    two = dict(line.split(" ::= ", 1) for line in grammar_of(fields[:2], 1).splitlines())
    assert (two["root"], two["fields"]) == (r'"{\"tasks\": [" task "]}"', "f0 inputs o0 | f1 inputs o1")


def test_pairs_of_fields_are_not_confused_by_combinations():
    names = ["text1", "text2", "choice1", "choice2"]
    for size in (2, 3, 4):
        for own in combinations(names, size):
            rows = [{name: f"{name} {i}" for name in own} for i in range(30)]
            for proposal in propose_by_rule(metadata_of("d", rows)):
                assert {"choice1", "choice2"} != {*proposal.input_fields, proposal.output_field}
