"""The other directions follow from the fields, and never ask for what they give."""

import pytest

from taskmill.errors import UsageError
from taskmill.templates.inversion import bare, directions, inverted
from taskmill.templates.schema import builtin, slots, usable

QRA = {"question", "answer", "rationale"}


def names(cluster, has, **how):
    return [d.name for d in directions(builtin()[cluster], has, **how)]


def test_each_invertible_field_is_asked_for_once():
    assert names("exqa", {"context", "question", "answer"}) == [
        "question+answer>context",
        "context+answer>question",
    ]
    assert names("sentiment", {"context", "answer", "options"}) == ["answer>context"]
    assert names("qg", {"context", "question", "answer"}) == [
        "question+answer>context",
        "context+question>answer",
    ]


def test_rationales_give_the_four_orders_of_the_paper():
    assert set(names("math", QRA, cot=True)) == {
        "question+answer>rationale",
        "answer+rationale>question",
        "rationale>question+answer",
        "answer>question+rationale",
    }
    assert "context+rationale>question+answer" in names("te", {*QRA, "context"}, cot=True)
    assert names("math", QRA) == ["answer>question"]  # without --cot no rationale is shown


@pytest.mark.parametrize("name", sorted(builtin()))
@pytest.mark.parametrize("cot", [False, True])
def test_no_direction_leaks_what_it_asks_for(name, cot):
    cluster = builtin()[name]
    has = set(cluster.fields)
    if not directions(cluster, has, cot=cot):
        assert cot
        assert "rationale" not in has
        return
    found = inverted(cluster, has, cot=cot)
    assert len({t.name for t in found}) == len({(t.input, t.target) for t in found}) == len(found)
    for template in found:
        given, asked = slots(template.input), slots(template.target)
        assert given
        assert asked
        assert not given & asked
    each = len(found) / len(directions(cluster, has, cot=cot))
    assert each >= 10


def test_wordings_name_the_fields_as_the_cluster_calls_them():
    found = inverted(builtin()["nli"], {"context", "question", "answer"})
    texts = [t.input for t in found]
    assert any("hypothesis" in t for t in texts)
    assert any("premise" in t for t in texts)
    assert not any(
        mark in t for t in texts for mark in ("[asked]", "[given]", "[slot]", "[called]", "[Called]")
    )


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(UsageError, match="lacks a rationale"):
        inverted(builtin()["exqa"], {"context", "question", "answer"}, cot=True)


def test_bare_templates_are_fields_only():
    for template in bare(builtin()["nli"], {"context", "question", "answer", "options"}):
        assert slots(template.input) == {"context", "question"}
        assert slots(template.with_options) == {"context", "question", "options"}
        assert template.target == "{{ answer }}"


def test_a_template_is_used_only_where_it_shows_all_that_is_given():
    cluster = builtin()["mcqa"]
    with_passage = usable(cluster, {"context", "question", "options", "answer"}, options=True)
    alone = usable(cluster, {"question", "options", "answer"}, options=True)
    assert len(with_passage) >= 10
    assert len(alone) >= 10
    assert all("context" in slots(t.with_options) for t in with_passage)
    assert not {t.name for t in with_passage} & {t.name for t in alone}
    assert all(
        "options" not in slots(t.input) for t in usable(cluster, {"question", "answer"}, options=False)
    )
