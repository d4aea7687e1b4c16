"""Re-casting: the passage is found on the tree, rows stay text, draws repeat."""

import random
from datetime import date

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError, InputError
from taskmill.render import PLACEHOLDER, escape, fill, has_marker, has_placeholder, unescape
from taskmill.templates.recast import recast

CONTEXT = "{{ context }}"
BULLETS = "{% for line in lines %}\n- {{ line }}\n{% endfor %}"
ROW = {"context": "A cat.", "question": "Who?", "lines": ["a", "b"], "label": 1}


def render(source, passage=CONTEXT, row=ROW, **options):
    return recast(source, passage, **options).render(row)


# what a quotation is


@pytest.mark.parametrize(
    ("source", "instruction"),
    [
        ("{{context}} Q ||| A", "{{context}} Q"),
        ("Read:{{   context}}!||| A", "Read:{{context}}!"),
        ("{{- context -}} Q ||| A", "{{context}}Q"),
        ("{{context}}{{ context }} ||| A", "{{context}}{{context}}"),
        ("{% if label %}{{context}}{% endif %} Q ||| A", "{{context}} Q"),
        ("{% if not label %}x{% elif label %}{{context}}{% endif %} ||| A", "{{context}}"),
        ("{% if not label %}x{% else %}{{context}}{% endif %} ||| A", "{{context}}"),
        ("{% for line in lines %}{{line}} {{context}} {% endfor %} ||| A", "a {{context}} b {{context}}"),
        ("{% set x = context %}{{x}} and {{ context }} ||| A", "{{context}} and {{context}}"),
        ("{{context}} {{ context | length }} ||| A", "{{context}} 6"),
        ("{# context #}{{context}} ||| A", "{{context}}"),
        ("{% raw %}{{context}}{% endraw %} {{context}} ||| A", "{\u2060{context}} {{context}}"),
    ],
)
def test_the_passage_is_found_wherever_it_is_written(source, instruction):
    made = recast(source, CONTEXT)
    assert made.places == {"instruction"}
    assert made.render(ROW) == ("A cat.", instruction, "A", ())


@pytest.mark.parametrize(
    "source",
    [
        "Nothing ||| A",
        "{{ question }} ||| A",
        "{{ context | upper }} ||| A",
        "{{ context[:3] }} ||| A",
        "{{ context ~ '' }} ||| A",
        "{{ (context, question) | join(' ') }} ||| A",
        "{% if context %}yes{% endif %} ||| A",
        "{% for word in context.split() %}{{ word }}{% endfor %} ||| A",
        "{% for context in lines %}{{ context }}{% endfor %} ||| A",
        "{% set context = question %}{{ context }} ||| A",
        "{% if label %}{% set context = question %}{{ context }}{% endif %} ||| A",
        "{% if label %}{% set context = question %}{% endif %}{{ context }} ||| A",
        "{% set x = context %}{{ x }} {{ x | length }} ||| A",
        "{% set x = context %}{% set x = question %}{{ x }} ||| A",
        "{% raw %}{{ context }}{% endraw %} ||| A",
    ],
)
def test_a_column_that_is_only_looked_at_is_not_quoted(source):
    assert recast(source, CONTEXT) is None


@pytest.mark.parametrize(
    ("source", "passage", "expected"),
    [
        ("Facts: " + BULLETS + " Q ||| A", BULLETS, ("- a\n\n- b", "Facts: {{context}} Q")),
        (
            "{{lines|join( '\\n\\n' )}} ||| A",
            '{{ lines | join("\\n\\n") }}',
            ("a\n\nb", "{{context}}"),
        ),
        (
            "{{context[0]|lower}}{{ context[1:]|trim('.')}}. ||| A",
            "{{ context[0] | lower }}{{ context[1:] | trim('.') }}",
            ("a cat", "{{context}}."),
        ),
        (
            "Q: {{question}} T: {{context}}. End ||| A",
            "T: {{ context }}.",
            ("T: A cat..", "Q: Who? {{context}} End"),
        ),
        (
            "<{{context}}> <{{context}}> ||| A",
            "<{{ context }}>",
            ("<A cat.>", "{{context}} {{context}}"),
        ),
        ("<{{context}}><{{context}}>||| A", "<{{ context }}>", ("<A cat.>", "{{context}}{{context}}")),
    ],
)
def test_a_passage_may_be_a_sequence_of_nodes(source, passage, expected):
    assert render(source, passage)[:2] == expected


@pytest.mark.parametrize(
    ("source", "passage"),
    [
        ("{% for line in lines %}\n* {{ line }}\n{% endfor %} ||| A", BULLETS),
        ("{% for line in lines %}{{ line }}{% endfor %} ||| A", BULLETS),
        ("{{ lines | join('\\n') }} ||| A", "{{ lines | join('\\n\\n') }}"),
        ("Text {{ context }} ||| A", "T: {{ context }}"),
    ],
)
def test_another_way_to_write_the_passage_is_not_the_passage(source, passage):
    assert recast(source, passage) is None


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("Q ||| {{context}}", {"response"}),
        ("{{context}} ||| {{context}}", {"instruction", "response"}),
        ("{% if label %}Q ||| {{context}}{% endif %}", {"response"}),
        (
            "{% if label %}{{context}} ||| A{% else %}Q ||| {{context}}{% endif %}",
            {"instruction", "response"},
        ),
    ],
)
def test_places_say_on_which_side_the_placeholder_stands(source, places):
    assert recast(source, CONTEXT).places == places


def test_places_of_a_row_are_those_of_its_branch():
    made = recast("{% if label %}{{context}} ||| A{% else %}Q ||| {{context}}{% endif %}", CONTEXT)
    assert made.render(ROW).places == {"instruction"}
    assert made.render(ROW | {"label": 0}).places == {"response"}


def test_columns_are_those_of_all_three_texts():
    made = recast(
        "{{context}} {{question}} ||| {{ answer_choices[label] }}", CONTEXT, answer_choices="{{a}}|||b"
    )
    assert made.columns == {"context", "question", "label", "a"}


def test_a_name_is_kept_exactly():
    assert recast("{{context}}|||", CONTEXT, name="with choices ").name == "with choices "


# the separator


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{context}}", "no |||"),
        ("{{context}} ||| A ||| B", "more than one"),
        ("{{context}} ||| A{% if label %} ||| B{% endif %}", "more than one"),
        ("{% for line in lines %}{{context}} ||| {% endfor %}", "in a loop"),
        ("{{context}} {{ '|||' }} A", "no |||"),
    ],
)
def test_a_template_has_one_separator(source, said):
    with pytest.raises(ConfigError, match=said.replace("|", r"\|")) as raised:
        recast(source, CONTEXT, name="odd ")
    assert "'odd '" in str(raised.value)


def test_a_separator_in_the_row_does_not_split():
    row = {"context": "a ||| b", "question": "c ||| d", "lines": ["e ||| f", "g"], "label": 0}
    source = "{{context}} {{question}} ||| {{answer_choices[label]}}"
    made = render(source, row=row, answer_choices="{{ lines | join('|||') }}")
    assert made == ("a ||| b", "{{context}} c ||| d", "e ||| f", ("e ||| f", "g"))


def test_a_branch_that_is_not_taken_leaves_an_empty_response():
    made = recast("{% if label == 2 %}{{context}} ||| A{% endif %}", CONTEXT)
    assert made.render(ROW) == ("A cat.", "", "", ())


# rows stay text

FRAGMENTS = ["{", "}", "{{", "}}", "context", " ", "<", "|", "<|", "pipe", "|>", "\u2060", "|||", "\ue000"]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.characters(codec="utf-8"), max_size=20).map("".join)
QUOTES_BOTH = recast("{{question}}{{context}}{{question}}|||{{question}}{{context}}", CONTEXT)


@given(TEXTS, TEXTS)
def test_texts_of_the_row_are_escaped_and_come_back(context, question):
    made = QUOTES_BOTH.render({"context": context, "question": question})
    assert made.passage == context.strip()
    parts = made.instruction.split(PLACEHOLDER)
    assert [unescape(part) for part in parts] == [question.lstrip(), question.rstrip()]
    assert not any(has_marker(part) or has_placeholder(part) for part in parts)
    assert fill(made.instruction, "@") == question.lstrip() + "@" + question.rstrip()
    assert fill(made.response, "@") == question.lstrip() + "@"


def test_two_columns_cannot_join_into_a_marker():
    made = render("{{a}}{{b}} {{context}}|||x", row={"context": "c", "a": "{{con", "b": "text}}<|pi"})
    assert made.instruction.count(PLACEHOLDER) == 1
    assert fill(made.instruction, "c") == "{{context}}<|pi c"


def test_private_characters_of_the_row_are_text():
    every = "".join(map(chr, range(0xE000, 0xF900)))
    made = render("{{context}} {{question}}|||x", row={"context": "c", "question": "\ue000\ue001|||\ue003"})
    assert made.instruction == "{{context}} \ue000\ue001|||\ue003"
    with pytest.raises(InputError, match="private"):
        render("{{context}}|||x", row={"context": every})


PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "{{context}}",
                "{{ context }}",
                "{{question}}",
                "text ",
                "\n",
                "{{ label }}",
                "{{ context|length }}",
            ),
            *(
                "{% if label %}{{context}} yes{% endif %}",
                "{% if question %}{% else %}{{context}}{% endif %}",
            ),
            *("{% for line in lines %}{{ line }}, {% endfor %}", "{{ lines | join('; ') }}", "{# a note #}"),
        ]
    ),
    max_size=8,
).map("".join)


@given(PIECES, PIECES, TEXTS, st.integers(0, 1))
def test_it_renders_what_plain_jinja_renders(before, after, text, label):
    row = {"context": "The passage", "question": text, "lines": [text, "b"], "label": label}
    made = recast(f"{before}|||{after}", CONTEXT)
    quotes = before + after
    if "{{context}}" not in quotes and "{{ context }}" not in quotes:
        assert made is None
        return
    plain = jinja2.Environment()
    for source, got in ((before, made.render(row).instruction), (after, made.render(row).response)):
        expected = plain.from_string(source.replace("{{ context }}", "{{context}}")).render(row).strip()
        assert fill(got, "The passage") == expected
    assert made.render(row).instruction.count(PLACEHOLDER) <= before.count("context")


def test_the_template_s_own_words_are_escaped_too():
    assert render("{{context}} <|task|> ||| x").instruction == "{{context}} " + escape("<|task|>")


# nulls, missing columns, foreign values


@pytest.mark.parametrize("row", [ROW | {"question": None}, ROW | {"context": None}])
def test_a_null_is_not_written(row):
    with pytest.raises(InputError, match=r"template 'asks'.*null value.*columns context.*null: "):
        render("{{context}} {{question}} ||| x", row=row, name="asks")


def test_a_null_that_is_not_written_does_no_harm():
    assert (
        render("{{context}}{% if question %}{{question}}{% endif %}|||x", row=ROW | {"question": None})[2]
        == "x"
    )


def test_a_missing_column_is_named_with_those_at_hand():
    with pytest.raises(
        InputError, match=r"template 'asks'.*'answer'.*columns context, question, lines, label"
    ):
        render("{{context}} {{answer}} ||| x", name="asks")


def test_a_column_may_be_missing_where_the_template_says_so():
    source = "{{context}}{% if hint is defined %} {{hint}}{% endif %} {{ hint | default('none') }}|||x"
    assert render(source).instruction == "{{context}} none"


def test_values_become_plain_data():
    class Array:
        def tolist(self):
            return [1, [2.5, "x"]]

    row = {"context": "c", "day": date(2024, 2, 28), "array": Array(), "pair": (1, {"k": True})}
    assert render("{{context}} {{day}} {{array[1][1]}} {{pair[1].k}} ||| x", row=row)[1] == (
        "{{context}} 2024-02-28 x True"
    )
    with pytest.raises(InputError, match=r"column 'odd' holds a object"):
        render("{{context}}|||x", row={"context": "c", "odd": [object()]})


def test_rows_are_not_changed():
    row = {"context": "c", "lines": ["b", "a"]}
    render("{{context}}{{ lines | sort | join }}|||x", row=row)
    assert row == {"context": "c", "lines": ["b", "a"]}


# functions


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{% for a, b in zip(lines, [1, 2]) %}{{a}}{{b}} {% endfor %}", "a1 b2"),
        ("{% for i, a in enumerate(lines) %}{{i}}{{a}} {% endfor %}", "0a 1b"),
        ("{% for i in range(2) %}{{loop.index}}{{loop.last}} {% endfor %}", "1False 2True"),
        ("{{ ['a', 'b', 'b'] | most_frequent | join }}", "b"),
        ("{{ [] | most_frequent | length }}", "0"),
        (
            "{% set n = namespace(x=1) %}{% for i in range(3) %}{% set n.x = n.x * 2 %}{% endfor %}{{n.x}}",
            "8",
        ),
        ("{{ question.lower().replace('w', 'W').split('h') | join('-') }}", "W-o?"),
        ("{{ {'a': 1}.items() | list }} {{ '-'.join(lines) }}", "[('a', 1)] a-b"),
        ("{{ lines | map('upper') | reject('equalto', 'B') | list }}", "['A']"),
        ("{{ ' .x. ' | trim | trim('.') }}{{ 'aba'.strip('a') }}{{ 1.26 | round(1) }}", "xb1.3"),
        ("{{ 'x' ~ label ~ none }}{{ [1] + [2] }}{{ 7 % 4 }}", "x1None[1, 2]3"),
    ],
)
def test_functions_of_templates(source, written):
    assert render("{{context}}||| " + source).response == written


# draws

DRAWS = "{{context}} {{ ['a', 'b', 'c', 'd'] | choice }}{{ ['a', 'b', 'c', 'd'] | random }} ||| x"


def test_draws_depend_on_seed_row_and_template_only():
    made = recast(DRAWS, CONTEXT, name="t")
    state = random.getstate()
    several = [made.render(ROW, seed=s, row_id=str(r)).instruction for s in range(4) for r in range(16)]
    random.seed(5)
    again = recast(DRAWS, CONTEXT, name="t")
    assert [
        again.render(ROW, seed=s, row_id=str(r)).instruction for s in range(4) for r in range(16)
    ] == several
    random.setstate(state)
    assert len(set(several)) == 16
    other = recast(DRAWS, CONTEXT, name="u")
    assert [other.render(ROW, row_id=str(r)).instruction for r in range(16)] != several[:16]


def test_rendering_leaves_the_global_generator_alone():
    state = random.getstate()
    render(DRAWS)
    assert random.getstate() == state


def test_a_variable_keeps_its_draw():
    source = "{% set x = ['a', 'b', 'c'] | choice %}{{context}} {{x}} ||| {{x}}"
    for row in range(9):
        made = recast(source, CONTEXT).render(ROW, row_id=str(row))
        assert made.instruction == "{{context}} " + made.response
