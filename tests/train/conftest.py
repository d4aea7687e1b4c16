"""The tiny model, made once; everything here is skipped without the packages of the `train` extra."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def needs_train():
    for name in ("torch", "transformers", "peft", "tokenizers", "safetensors"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is too small to share; threads would only wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(needs_train, tmp_path_factory):
    import tiny

    return tiny.make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)
