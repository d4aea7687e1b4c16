"""Tokenizers without torch: texts of any length, whole."""

import json

import numpy as np
import pytest

from taskmill.backends.tokenizer import _LONGEST, _pieces, load_text_tokenizer
from taskmill.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    ["", "short", "word " * 9000, "x" * 30_000, "漢字" * 9000, "a  b\n\n c " * 5000, "é " * 20_000],
    ids=["empty", "short", "words", "one word", "no spaces", "spaces", "accents"],
)
def test_pieces_are_the_text_and_short(text):
    pieces = _pieces(text)
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= _LONGEST for piece in pieces)


def test_a_place_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"has no tokenizer.json"):
        load_text_tokenizer(str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no tokenizer \./nowhere"):
        load_text_tokenizer("./nowhere")


@pytest.fixture
def folder(tmp_path):
    """A word-level tokenizer as `save_pretrained` leaves it, which begins texts with a token."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "c": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    made.enable_truncation(4)
    made.enable_padding()
    made.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ messages }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_a_folder_is_read_without_torch(folder, name):
    found = load_text_tokenizer(str(folder / name))
    assert (found.end, found.begin, found.size) == (1, (0,), 6)
    assert found.chat_template == "{{ messages }}"
    ids, offsets = found.encode(["a b", "", "c " * 20, "a</s>"])
    assert np.diff(offsets).tolist() == [2, 0, 20, 2]  # neither cut nor padded as the file says
    assert ids[:2].tolist() == [3, 4]
    assert ids[-1] == 1


@pytest.mark.slow
def test_the_embedded_tokenizer_reads_long_texts_whole():
    pytest.importorskip("openvino_genai")
    found = load_text_tokenizer("smollm2-135m")
    words = "the quick brown fox " * 4000
    ids, offsets = found.encode([words, "the quick brown fox "])
    assert offsets[1] > 8192
    assert set(ids[1 : offsets[1] - 1]) == {*found.encode([" the quick brown fox"])[0].tolist()}
    assert found.end == 2
    assert "im_start" in found.chat_template
