"""Corpora are counted in words here: no tokenizer has to be loaded."""

import pytest
import word_tokenizer

from taskmill.backends import tokenizer


@pytest.fixture(autouse=True)
def words(monkeypatch):
    monkeypatch.setattr(tokenizer, "load_text_tokenizer", word_tokenizer.load)
