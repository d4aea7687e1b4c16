"""Text → token ids without torch: the embedded model's tokenizer, a tokenizer.json, a GGUF file, a Hub name.

The embedded one and those of GGUF files are read by OpenVINO GenAI, tokenizer.json by `tokenizers`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from taskmill.backends import ADAPTERS
from taskmill.backends.openvino import ADAPTED, EMBEDDED, _import, embedded_model
from taskmill.errors import BackendError, ConfigError, MissingExtra

__all__ = ["TextTokenizer", "load_text_tokenizer"]

Array = np.ndarray[Any, Any]

BATCH = 256
"""Texts encoded at once (chosen: they are padded to the longest, and more gain nothing)."""

_LONGEST = 8192
"""Tokens after which the tokenizer that OpenVINO builds of a GGUF file cuts a text, silently and whatever
length it is asked for (2026.4). A token is a byte or more: texts are encoded in pieces of so many bytes."""

_BORDER = re.compile(r"(?<=\S)(?= [^\W\d_])")
"""Before a single space and a letter: byte-level BPE never joins what stands on its two sides."""

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class TextTokenizer:
    """A tokenizer: `end` is its end-of-text token's id (or None), `begin` the ids its texts begin with.

    `chat_template` is a Jinja template or "", `special_tokens` what its names are filled with.
    """

    name = ""
    end: int | None = None
    begin: tuple[int, ...] = ()
    chat_template = ""
    size = 0

    def __init__(self) -> None:
        self.special_tokens: dict[str, str] = {}

    def encode(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """Return (ids, offsets): the ids of all texts in a line (uint32), where each text's begin (int64).

        No token is added; special tokens in a text are special (`render.escape_special` makes them text).
        """
        rows = [row for at in range(0, len(texts), BATCH) for row in self._rows(list(texts[at : at + BATCH]))]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
        return (np.concatenate(rows) if rows else np.zeros(0)).astype(np.uint32), offsets

    def _rows(self, texts: list[str]) -> list[Array]:
        raise NotImplementedError


class _FromGguf(TextTokenizer):
    def __init__(self, path: Path, name: str) -> None:
        super().__init__()
        try:
            self._own = _import().Tokenizer(str(path))
        except RuntimeError as error:  # C++ errors
            line = (str(error).strip() or "unknown").splitlines()[0]
            raise BackendError(f"no tokenizer can be read from {path}: {line}") from error
        self.name = name
        self.end = int(self._own.get_eos_token_id())
        self.chat_template = str(self._own.get_original_chat_template())
        self.special_tokens = {"bos_token": self._own.get_bos_token(), "eos_token": self._own.get_eos_token()}
        self.size = len(self._own.get_vocab())

    def _rows(self, texts: list[str]) -> list[Array]:
        found: list[list[Array]] = [[np.zeros(0, np.int64)] for _ in texts]
        pieces = [(i, piece) for i, text in enumerate(texts) for piece in _pieces(text) if piece]
        for begin in range(0, len(pieces), BATCH):
            part = pieces[begin : begin + BATCH]
            encoded = self._own.encode([piece for _, piece in part], add_special_tokens=False)
            ids, mask = encoded.input_ids.data, encoded.attention_mask.data.astype(bool)
            for at, (i, _) in enumerate(part):
                found[i].append(ids[at][mask[at]])
        return [np.concatenate(rows) for rows in found]


def _pieces(text: str) -> list[str]:
    """Cut a text into pieces of at most _LONGEST bytes, between words where there are any."""
    if len(text) * 4 <= _LONGEST or len(text.encode("utf-8", "replace")) <= _LONGEST:
        return [text]
    words = _BORDER.split(text)
    pieces, held = [""], 0
    for word in words:
        for part in (word[at : at + _LONGEST // 4] for at in range(0, len(word), _LONGEST // 4)):
            size = len(part.encode("utf-8", "replace"))
            if held and held + size > _LONGEST:
                pieces.append("")
                held = 0
            pieces[-1] += part
            held += size
    return pieces


class _FromJson(TextTokenizer):
    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtra("tokenizers", "embed") from error
        try:
            self._own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises plain Exception
            raise BackendError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
        self._own.no_padding()
        self._own.no_truncation()
        self.name = name
        self.size = self._own.get_vocab_size()
        settings = _json(folder / "tokenizer_config.json")
        self.special_tokens = _special({**_json(folder / "special_tokens_map.json"), **settings})
        self.chat_template = _template(folder, settings)
        if "eos_token" not in self.special_tokens:
            named = self._own.id_to_token(_first(_json(folder / "config.json").get("eos_token_id")))
            self.special_tokens |= {"eos_token": named} if named else {}
        end = self.special_tokens.get("eos_token")
        self.end = self._own.token_to_id(end) if end else None
        plain = self._own.encode("a", add_special_tokens=False).ids
        whole = self._own.encode("a").ids
        if plain and plain[0] in whole:
            self.begin = tuple(whole[: whole.index(plain[0])])

    def _rows(self, texts: list[str]) -> list[Array]:
        found = self._own.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in found]


def load_text_tokenizer(ref: str) -> TextTokenizer:
    """Return the tokenizer a reference names: an embedded model, a folder, a file, or a Hub name[@revision].

    Raises ConfigError for a path without a tokenizer, MissingExtra or BackendError if it cannot be loaded.
    """
    name = ref.removeprefix("openvino:").partition("+")[0]
    name = ADAPTED if name in ADAPTERS else name
    if name in EMBEDDED:
        return _FromGguf(embedded_model(name), name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _FromGguf(path, path.stem)
    if path.name == "tokenizer.json" and path.is_file():
        return _FromJson(path.parent, path.resolve().parent.name)
    if path.is_dir():
        if not (path / "tokenizer.json").is_file():
            raise ConfigError(
                f"{path} has no tokenizer.json; save one with `save_pretrained` of a fast tokenizer"
            )
        return _FromJson(path, path.resolve().name)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(EMBEDDED)
        raise ConfigError(
            f"there is no tokenizer {ref}; give a folder, a tokenizer.json, a Hub name or one of: {known}"
        )
    return _FromJson(_downloaded(name), name)


def _downloaded(ref: str) -> Path:
    if find_spec("huggingface_hub") is None:
        raise MissingExtra("huggingface_hub", "hf")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import snapshot_download

    name, _, revision = ref.partition("@")
    files = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "*.jinja"]
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=files))
    except Exception as error:  # of several libraries below it
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackendError(f"the tokenizer of {ref} cannot be fetched: {line}") from error
    if not (folder / "tokenizer.json").is_file():
        raise BackendError(f"{ref} has no tokenizer.json; name a model that has a fast tokenizer")
    return folder


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BackendError(f"{path} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _special(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the named special tokens; a token may be a text, or an object with its text in `content`."""
    found = {}
    for name in _NAMES:
        value = settings.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            found[name] = value
    return found


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    given = settings.get("chat_template")
    if isinstance(given, list):  # several, by name
        given = next((one.get("template") for one in given if one.get("name") == "default"), None)
    if isinstance(given, str):
        return given
    path = folder / "chat_template.jinja"
    return path.read_text("utf-8") if path.is_file() else ""


def _first(value: Any) -> int:
    """Return a token's number, the first of several; a number that no token has if there is none."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else 2**32 - 1
