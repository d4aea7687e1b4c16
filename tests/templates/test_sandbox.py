"""Templates of unknown origin: they reach nothing, and take little time and memory."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import ConfigError, InputError
from taskmill.templates.recast import recast
from taskmill.templates.sandbox import MAX_OUTPUT, MAX_SOURCE

CONTEXT = "{{ context }}"
ROW = {"context": "A cat.", "lines": ["a", "b"], "label": 1}


def render(source, passage=CONTEXT, row=ROW, **options):
    return recast(source, passage, **options).render(row)


REFUSED = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ context | attr('__class__') }}",
    "{{ [''] | map(attribute='__class__') | join }}",
    "{{ range.__globals__ }}",
    "{{ self.__init__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ lines.append(1) }}",
    "{{ lines.sort() }}",
    "{{ lipsum() }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
    "{% extends 'x' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x %}x{% endset %}",
    "{% filter upper %}x{% endfilter %}",
    "{% for x in lines recursive %}{{ loop(lines) }}{% endfor %}",
    "{{ _taskmill_place }}",
    "{{ 'x' | _taskmill_steps(-9) }}",
]
GREEDY = [
    "{{ 'a' * 10000000000 }}",
    "{{ [0] * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ 2 ** 1000000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ range(10000000000) | list }}",
    "{{ range(100000) | join('" + "x" * 5000 + "') }}",
    "{{ ('" + "x" * 5000 + "').join(range(99999) | map('string')) }}",
    "{% set x = 9 %}" + "{% set x = x * x %}" * 30 + "{{ x }}",
    "{% set x = 'aaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "{% set x = 'aaaaaaaa' %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = {1: x, 2: x} %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = zip(x, x) %}" * 9 + "{% set x = [x, x] %}" * 60 + "{{ x == x }}",
    "{% set n = namespace(x=[1]) %}" + "{% set n = namespace(x=[n.x, n.x]) %}" * 60 + "{{ n.x }}",
    "{% set x = {1: 1} %}" + "{% set x = {1: x.values(), 2: x.values()} %}" * 60 + "{{ x }}",
    "{{ 'a'" + " | replace('a', 'aaaaaaaaaaaaaaaaaaaa')" * 30 + " | length }}",
    "{{ 'a'" + ".replace('a', 'aaaaaaaaaaaaaaaaaaaa')" * 30 + " | length }}",
    "{{ ('a' * 1000000) | trim('b' * 1000000 ~ 'a') }}",
    "{{ ('a' * 1000000).lstrip('b' * 1000000 ~ 'a') }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ [[1]] | sum(start=[]) }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{% for i in range(99999) %}{{ context | upper | lower | title | length }}{% endfor %}",
    "{{" + "(" * 5000 + ")" * 5000 + "}}",
    "{{ 1" + " + 1" * 15000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
]


@pytest.mark.parametrize("source", REFUSED + GREEDY, ids=lambda source: source[:40])
def test_a_hostile_template_is_refused(source):
    with pytest.raises((ConfigError, InputError), match=r"'hostile'"):
        render("{{context}}|||" + source, row=ROW | {"context": "word " * 1000}, name="hostile")


def test_greedy_templates_take_little_memory():
    resource = pytest.importorskip("resource", reason="the peak of memory is measured on Unix only")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for source in GREEDY:
        with pytest.raises((ConfigError, InputError)):
            render("{{context}}|||" + source)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    assert grown < 200_000_000


@pytest.mark.parametrize("source", ["{{ 'a' * 10000000000 }}{{context}}", "{{ context.__class__ }}"])
def test_a_hostile_passage_or_choice_is_refused(source):
    with pytest.raises((ConfigError, InputError)):
        render(source + "|||", source)
    with pytest.raises((ConfigError, InputError)):
        render("{{context}}|||", answer_choices=source)


def test_output_and_source_are_bounded():
    assert len(render("{{context}}|||" + "a" * 60_000).response) == 60_000
    with pytest.raises(ConfigError, match="characters"):
        recast("{{context}}|||" + "a" * MAX_SOURCE, CONTEXT)
    assert len(render("{{context}}|||", row={"context": "a" * MAX_OUTPUT}).passage) == MAX_OUTPUT
    with pytest.raises(InputError, match="1,000,000"):
        render("{{context}}|||", row={"context": "a" * (MAX_OUTPUT + 1)})


@pytest.mark.parametrize(
    ("source", "passage", "said"),
    [
        ("{{context}}\n{% if %} ||| A", CONTEXT, "line 2"),
        ("{{context}} ||| A", "{{ context", "the passage of template 't'"),
        ("{{context}} ||| A", "no column", "names no column"),
        ("{{context}} ||| A", "", "names no column"),
        ("{{context}} ||| {{ label | shout }}", CONTEXT, "shout"),
    ],
)
def test_what_is_not_a_template_is_named(source, passage, said):
    with pytest.raises(ConfigError, match=said):
        recast(source, passage, name="t")


SYNTAX = [*"{}%|#-() '\"abxif=+*~.,[]0123", "{{", "}}", "{%", "%}"]


@given(st.lists(st.sampled_from(SYNTAX), max_size=30).map("".join))
def test_any_text_is_a_template_or_refused(source):
    try:
        made = recast(source + "{{context}}|||", CONTEXT)
        rendered = made and made.render({"context": "c"})
    except (ConfigError, InputError):
        return
    assert rendered is None or rendered.passage == "c"
