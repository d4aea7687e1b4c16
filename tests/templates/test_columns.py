"""Many rows at once say what MiniJinja says of each, in order, and keep every character."""

import minijinja
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.templates import columns
from taskmill.templates.columns import fill
from taskmill.templates.schema import pieces

TEXTS = [
    "{{ context }}\n\n{{ question }}",
    "Q: {{question}}\nT: {{  context  }} end",
    "{{ question }}",
    "no slot \\n at all",
    "{% if question %}{{ question | upper }}{% endif %}-{{ context }}",
    "{{ context }}{{ context }}",
    "tab\t{{ question }}\\n literal",
]
ANY = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["\\n", "a\nb", "\t", "\r\n", "{{ question }}", "{% raw %}", "é\u0301", "𝒳", "\x00", "</s>", "\\\\n"]
)


def expected(texts, choice, rows):
    environment = minijinja.Environment(keep_trailing_newline=True)
    return [environment.render_str(texts[t], **row) for t, row in zip(choice, rows, strict=True)]


@given(st.lists(st.tuples(st.integers(0, len(TEXTS) - 1), ANY, ANY), min_size=1, max_size=30))
@settings(max_examples=200)
def test_it_equals_minijinja_row_by_row(rows):
    choice = np.array([t for t, _, _ in rows])
    fields = {"context": [c for _, c, _ in rows], "question": [q for _, _, q in rows]}
    made = fill(TEXTS, choice, {name: pa.array(values, pa.string()) for name, values in fields.items()})
    each = [{"context": c, "question": q} for _, c, q in rows]
    assert made.to_pylist() == expected(TEXTS, choice.tolist(), each)


@given(st.lists(ANY, min_size=1, max_size=20))
def test_newlines_tabs_unicode_and_a_literal_backslash_n_survive(texts):
    """R14: the text of the row stands in the result as it was, and can be cut out again."""
    made = fill(["before|{{ context }}|behind"], np.zeros(len(texts), np.int64), {"context": pa.array(texts)})
    assert [one[7:-7] for one in made.to_pylist()] == texts


def test_batches_and_cores_change_nothing(monkeypatch):
    rows = 1000
    choice = np.arange(rows) % len(TEXTS)
    fields = {
        "context": pa.array([f"c{i}" for i in range(rows)]),
        "question": pa.array([f"q{i}" for i in range(rows)]),
    }
    whole = fill(TEXTS, choice, fields).to_pylist()
    monkeypatch.setattr(columns, "BATCH", 64)
    assert fill(TEXTS, choice, fields).to_pylist() == whole
    assert fill(TEXTS, choice[:0], {n: c.slice(0, 0) for n, c in fields.items()}).to_pylist() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ a }} b", ("", "a", " b")),
        ("{{ a | upper }}", None),
        ("{%- if a %}{% endif %}", None),
        ("{{- a }}", None),
        ("{# note #}x", None),
        ("{ a }", ("{ a }",)),
    ],
)
def test_only_templates_of_slots_are_joined_as_columns(text, found):
    assert pieces(text) == found
