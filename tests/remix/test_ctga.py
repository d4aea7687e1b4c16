"""Balance and composition: counts add up, shares follow the formula, attributes are read back."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError
from taskmill.record import Document, Example, Source, content_id
from taskmill.render import attributes_prompt, bonito_prompt
from taskmill.synthesize.ctga import Balance, Entry, about, compose, quotas, select
from taskmill.tasks import get
from taskmill.tasks.base import Attributes, Draft, Rejected

PASSAGE = "The harbour of Tarn was opened in 1902. Ida Holm designed its lighthouse."
COUNTS = st.dictionaries(
    st.sampled_from(["exqa", "qg", "nli", "te", "wsd"]), st.integers(1, 5000), min_size=1
)


@given(COUNTS, st.integers(1, 8000), st.floats(1, 10))
def test_quotas_share_out_exactly_what_there_is(counts, total, temperature):
    got = quotas(counts, Balance(total=total, temperature=temperature))
    assert sum(got.values()) == min(total, sum(counts.values()))
    assert all(got[task] <= n for task, n in counts.items())
    larger = sorted(counts, key=counts.get)
    assert all(got[a] <= got[b] + 1 for a, b in itertools.pairwise(larger))


@given(COUNTS, st.integers(1, 50), st.floats(1, 20))
def test_caps_and_ratio_bound_every_type(counts, cap, ratio):
    got = quotas(counts, Balance(cap=cap, max_ratio=ratio))
    assert max(got.values()) <= cap
    assert max(got.values()) <= ratio * min(got.values())


def test_a_high_temperature_evens_the_types_out():
    counts = {"exqa": 10000, "wsd": 100}
    assert quotas(counts, Balance(total=150, temperature=1)) == {"exqa": 149, "wsd": 1}
    even = quotas(counts, Balance(total=150, temperature=100))
    assert abs(even["exqa"] - even["wsd"]) < 10
    with pytest.raises(ConfigError):
        quotas(counts, Balance(temperature=0.5))


def entry(i, task="ynqa", response="Yes", dataset="d"):
    return Entry(
        content_id(task, str(i), response, dataset), task, dataset, response, content_id(str(i // 3)), 100
    )


def test_labels_take_turns_and_a_datasets_cap_holds():
    entries = [entry(i, response="Yes") for i in range(90)] + [entry(i, response="No") for i in range(30)]
    kept = select(entries, Balance(total=40, several=0), {}, 0)
    said = Counter(e.response for e in entries if e.id in kept)
    assert said == {"Yes": 20, "No": 20}
    assert len(select(entries, Balance(), {"d": 7}, 0)) == 7


def test_selection_does_not_depend_on_order():
    entries = [entry(i, task, dataset=d) for i in range(40) for task in ("qg", "exqa") for d in "ab"]
    balance = Balance(total=50, temperature=3)
    assert select(entries, balance, {}, 0) == select(entries[::-1], balance, {}, 0)
    assert select(entries, balance, {}, 0) != select(entries, balance, {}, 1)


def example(i, task="exqa", **more):
    base = Example(
        content_id(task, str(i)),
        task,
        PASSAGE,
        f"{{{{context}}}}\n\nQuestion: What is number {i}?\nAnswer with words taken from the text above.",
        "1902",
        source=Source(dataset="d", licence="MIT", split="train"),
    )
    return replace(base, **more)


def test_several_tasks_of_a_passage_share_a_row_and_are_read_back():
    (row,) = compose([example(i) for i in range(3)], Balance(several=1.0), 0)
    assert row.attributes == ("tasks",)
    assert len(row.examples) == 3
    assert row.prompt.endswith("\ntasks: 3\n<|task|>\n")
    kind = get("exqa")
    document = Document(content_id(PASSAGE), PASSAGE)
    ask = kind.ask(document, "bonito-attributes", attributes=Attributes(count=3))
    assert ask.prompt == row.prompt
    drafts = kind.parse(row.completion, ask)
    assert len(drafts) == 3
    assert all(isinstance(d, Draft) and d.response == "1902" for d in drafts)
    assert len(list(compose([example(i) for i in range(3)], Balance(several=0), 0))) == 3


def test_the_bonito_protocol_is_v1_byte_for_byte():
    rows = list(compose([example(i) for i in range(4)], Balance(protocol="bonito", several=1, answers=1), 0))
    assert {row.prompt for row in rows} == {bonito_prompt("extractive question answering", PASSAGE)}
    assert len(rows) == 4
    assert all(row.attributes == () for row in rows)


def test_the_bonito_protocol_looks_for_no_attributes(monkeypatch):
    """What its prompts cannot hold is not worked out either."""
    monkeypatch.setattr("taskmill.synthesize.ctga.about", lambda example: 1 / 0)
    assert len(list(compose([example(0)], Balance(protocol="bonito", sentences=1), 0))) == 1
    with pytest.raises(ZeroDivisionError):
        list(compose([example(0)], Balance(sentences=1), 0))


def test_all_prompts_about_a_passage_begin_with_it():
    own = [example(0), example(1, "qg"), example(2, "ynqa", response="Yes", options=("Yes", "No"))]
    rows = list(compose(own, Balance(several=0, sentences=1, labels=1, answers=1), 0))
    assert {row.prompt.split("<|tasktype|>")[0] for row in rows} == {f"<|context|>\n{PASSAGE}\n"}


def test_a_row_quotes_the_sentence_it_is_about():
    passage = (
        "The harbour of Lindau was dredged in the spring. Anna Weber opened the first lighthouse there in "
        "1853. Most boats came from Bregenz with timber and salt."
    )
    asked = replace(
        example(0),
        context=passage,
        instruction="{{context}}\n\nQuestion: Who opened the first lighthouse?",
        response="Anna Weber",
    )
    assert about(asked) == "Anna Weber opened the first lighthouse there in 1853."
    (row,) = compose([asked], Balance(several=0, answers=0, sentences=1), 0)
    assert "\nsentence: Anna Weber opened the first lighthouse there in 1853.\n<|task|>\n" in row.prompt
    assert about(replace(asked, instruction="{{context}} Why?", response="No idea")) == ""
    undecided = replace(asked, task="nli", response="Maybe", options=("Yes", "No", "Maybe"), answer_index=2)
    assert about(undecided) == ""
    assert about(replace(asked, task="summarization")) == ""


def test_a_trained_generator_is_asked_about_a_sentence():
    text = "Ships reach the harbour at noon every day. In the spring of 1902 it was dredged by four men."
    document = Document(content_id(text), text)
    said = {
        get("exqa").ask(document, "bonito-attributes", sample=s).prompt.split("sentence: ")[1].split("\n")[0]
        for s in range(2)
    }
    assert said == set(text.replace("day. ", "day.|").split("|"))
    coref = get("coref").ask(document, "bonito-attributes")
    assert "sentence: In the spring" in coref.prompt
    none = Document("x", "Ships reach the harbour at noon every day, Anna said so.")
    assert isinstance(get("coref").ask(none, "bonito-attributes"), Rejected)


def test_label_rows_name_labels_and_answer_as_the_product_asks_for_them():
    own = example(0, "ynqa", response="Yes", options=("Yes", "No"), answer_index=0)
    (row,) = compose([own], Balance(several=0, labels=1, answers=1), 0)
    assert row.prompt.endswith("\nlabels: Yes | No\nanswer: Yes\n<|task|>\n")
    document = Document(content_id(PASSAGE), PASSAGE)
    prompts = {
        get("ynqa").ask(document, "bonito-attributes", sample=s, attributes=Attributes()).prompt
        for s in range(4)
    }
    # The product quotes a sentence and begins the reply, too.
    plain = {re.sub(r"\nsentence: [^\n]*", "", p).split("<|task|>\n")[0] + "<|task|>\n" for p in prompts}
    assert row.prompt in plain
    free = get("ynqa").ask(document, "bonito-attributes", attributes=Attributes(guided=False))
    assert free.prompt == attributes_prompt("yes-no question answering", PASSAGE, {})


def test_passages_with_tasks_of_many_types_come_first_and_together():
    rich = [
        Entry(f"r{i}-{t}", t, "d", "x", f"rich{i}") for i in range(40) for t in ("exqa", "qg", "qa", "mcqa")
    ]
    poor = [
        Entry(f"p{i}-{t}", t, "d", "x", f"{t}{i}") for i in range(40) for t in ("exqa", "qg", "qa", "mcqa")
    ]
    chosen = select([*rich, *poor], Balance(total=80), {}, 0)
    assert sum(name.startswith("r") for name in chosen) > 65  # 16 to 1 by weight, 40 by chance
    passages = Counter(name.split("-")[0] for name in chosen if name.startswith("r"))
    assert sum(n == 4 for n in passages.values()) > 0.8 * len(passages)


def test_the_sentence_is_the_shorter_of_two_that_share_as_much():
    passage = "Anna Weber opened the lighthouse in 1853 with a feast. Anna Weber opened the lighthouse."
    asked = replace(example(0), context=passage, instruction="{{context}} Who opened the lighthouse?")
    assert about(replace(asked, response="Anna Weber")) == "Anna Weber opened the lighthouse."
