"""The tokens of whole tables are those that `ingest.tokens` counts one text at a time."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from taskmill.ingest.tokens import COST_PER_TOKEN, cost
from taskmill.recipes.mixing import lengths

SCRIPTS = ["plain words, 12.", "हिन्दी में लिखा", "漢字 かな", "ภาษาไทย", "ünïcödé — “x”", "\n\t", "", "🙂🙂"]
texts = st.lists(st.one_of(st.sampled_from(SCRIPTS), st.text(max_size=40)), min_size=1, max_size=6)


def tokens(*parts):
    return -(-sum(map(cost, parts)) // COST_PER_TOKEN)


@given(prompts=texts, completions=texts)
def test_columns_of_a_layout_are_counted_together(prompts, completions):
    rows = list(zip(prompts, completions, strict=False))
    names = ["prompt", "completion", "url"]
    table = pa.Table.from_pylist([dict(zip(names, (*row, "not read"), strict=True)) for row in rows])
    assert lengths(table).tolist() == [tokens(*row) for row in rows]


def test_chats_and_plain_texts_are_counted():
    turns = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    assert lengths(pa.Table.from_pylist([{"messages": turns}])).tolist() == [tokens("one two", "three")]
    assert lengths(pa.table({"text": ["one two", None], "url": ["x", "y"]})).tolist() == [
        tokens("one two"),
        0,
    ]
    assert lengths(pa.table({"title": ["one"], "body": ["two"]})).tolist() == [tokens("one", "two")]
    assert lengths(pa.table({"n": [1, 2]})).tolist() == [0, 0]
