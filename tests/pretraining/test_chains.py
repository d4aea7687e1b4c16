"""The scheduler: any number of texts in any number of rounds, each text once."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_tokenizer import count

from taskmill.errors import ConfigError
from taskmill.synthesize.pair_format import Pair, Shown, prompt
from taskmill.synthesize.pretraining import chains, newest

# Upstream fails on these (texts, rounds), and wherever there are fewer texts than rounds.
UPSTREAM_FAILS = [(4, 3), (7, 3), (5, 4), (6, 4), (9, 4), (10, 4), (1, 2), (2, 4)]


@given(st.integers(0, 60), st.integers(1, 70))
def test_every_text_is_in_one_chain_and_no_chain_is_longer_than_the_rounds(texts, rounds):
    found = chains(range(texts), rounds)
    assert sorted(n for chain in found for n in chain) == list(range(texts))
    assert all(1 <= len(chain) <= rounds for chain in found)
    assert len(found) == -(-texts // rounds)


@pytest.mark.parametrize(("texts", "rounds"), UPSTREAM_FAILS)
def test_the_sizes_at_which_upstream_fails(texts, rounds):
    found = chains(range(texts), rounds)
    assert sorted(n for chain in found for n in chain) == list(range(texts))


def test_round_r_holds_the_texts_of_block_r():
    """Oracle: the blocks of read_compre.py, ceil(N / M) texts each."""
    assert chains("abcdefg", 3) == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_fewer_than_one_round_is_refused():
    with pytest.raises(ConfigError, match="one round or more"):
        chains([1], 0)


examples = st.lists(
    st.builds(
        lambda n, k: Shown("word " * n, tuple(Pair(f"q{i}", "a") for i in range(k))),
        st.integers(1, 30),
        st.integers(1, 3),
    ),
    max_size=6,
)


@given(examples, st.integers(1, 40), st.integers(1, 300))
def test_the_newest_examples_that_fit_are_shown_and_never_more(history, size, room):
    text = "new " * size
    found = newest(history, text, room, count)
    fitting = [k for k in range(len(history) + 1) if count(prompt(text, history[len(history) - k :])) <= room]
    if not fitting:
        assert found is None
    else:
        assert found == history[len(history) - max(fitting) :]
        assert count(prompt(text, found)) <= room


def test_a_chain_goes_on_before_another_begins(tmp_path):
    """With an engine of one place, a chain's prompts follow each other: its cache holds their beginning."""
    from test_corpus import config, text, write

    from taskmill.backends import GENERATORS, echo
    from taskmill.recipes.corpus import corpus

    asked = []

    class OneByOne(echo.Echo):
        def generate(self, requests):
            for request in requests:
                asked.append(request)
                yield from super().generate([request])

    if "one" in GENERATORS.names():
        GENERATORS.unregister("one")
    GENERATORS.register("one", lambda name, revision, config: OneByOne(name))
    source = write(tmp_path / "t.jsonl", [{"text": text(i)} for i in range(12)])
    corpus(config(source, ref="one:", format="pairs", augment=1.0, rounds=4, length=2048), tmp_path / "out")
    assert [request.payload.round for request in asked] == [0, 1, 2, 3] * 3
    for first, second in pairwise(asked):
        if second.payload.round:
            assert second.payload.chain == first.payload.chain
            assert second.prompt.startswith(first.prompt)
