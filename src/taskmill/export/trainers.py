"""The trainers' own configuration files, written beside the data so that one command trains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

__all__ = ["configs"]

_CHAT_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
_SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
# The key is `formatting` and its default is `alpaca`: leaving it out means Alpaca without a word.
# `columns` replaces all defaults at once, so every column that is read must be named.
_LLAMA_FACTORY: dict[str, dict[str, Any]] = {
    "messages": {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _CHAT_TAGS},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": _SHAREGPT_TAGS},
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    },
    "prompt-completion": {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}},
    "bonito": {"formatting": "alpaca", "columns": {"prompt": "input", "response": "output"}},
    "text": {"formatting": "alpaca", "columns": {"prompt": "text"}},
}

_TRAIN_ON = {"roles_to_train": ["assistant"], "train_on_eos": "turn"}


def _columns_prompt(prompt: str, response: str, layout: str) -> dict[str, Any]:
    return {
        "type": {
            "field_instruction": prompt,
            "field_output": response,
            "format": layout,
            "no_input_format": layout,
        }
    }


_AXOLOTL: dict[str, dict[str, Any]] = {
    "messages": {
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        **_TRAIN_ON,
    },
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {"user": ["human"], "assistant": ["gpt"], "system": ["system"]},
        **_TRAIN_ON,
    },
    "alpaca": {"type": "alpaca"},
    "prompt-completion": _columns_prompt("prompt", "completion", "{instruction}"),
    "bonito": _columns_prompt("input", "output", "<|input|>\n{instruction}\n<|output|>\n"),
    "text": {"type": "completion", "field": "text"},
}
_TRL: dict[str, dict[str, Any]] = {
    "messages": {"assistant_only_loss": True},
    "sharegpt": {"assistant_only_loss": True},
    "prompt-completion": {"completion_only_loss": True},
    "text": {"dataset_text_field": "text"},
}


def configs(name: str, format: str, patterns: Mapping[str, str], columns: list[str]) -> dict[str, str]:
    """Return file name → text of the trainers' configurations that suit the format.

    `patterns` maps each split to its Parquet files, `columns` are the format's own.
    """
    splits = list(patterns)
    files = {
        "dataset_info.json": _llama_factory(name, format, splits),
        "axolotl.yaml": _axolotl(format, splits),
    }
    # TRL reads neither Alpaca's nor Bonito's columns.
    return files | ({"trl.yaml": _trl(format, patterns["train"], columns)} if format in _TRL else {})


def _llama_factory(name: str, format: str, splits: Sequence[str]) -> str:
    """Return `dataset_info.json`: one data set per split, `name` for the training split."""
    entries = {
        name if split == "train" else f"{name}_{split}": {
            "file_name": f"{split}.jsonl",
            **_LLAMA_FACTORY[format],
        }
        for split in splits
    }
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _axolotl(format: str, splits: Sequence[str]) -> str:
    """Return `axolotl.yaml`: the `datasets:` block to merge into a training configuration."""
    block: dict[str, Any] = {}
    for split in splits:
        entry = {"path": f"{split}.jsonl", "ds_type": "json", "split": "train", **_AXOLOTL[format]}
        block["datasets" if split == "train" else "test_datasets"] = [entry]
    head = (
        "# Merge into a training configuration that names the base model; run from this folder.\n"
        "# ds_type json calls its only split `train`.\n"
    )
    return head + _dump(block)


def _trl(format: str, train_files: str, columns: list[str]) -> str:
    """Return `trl.yaml` for `trl sft --config trl.yaml`."""
    # `load_dataset(".")` fails (a data set needs a name), so the files are named;
    # `columns` leaves our own out.
    source = {"path": "parquet", "data_files": train_files, "split": "train", "columns": columns}
    config: dict[str, Any] = {"datasets": [source], **_TRL[format], "max_length": 2048, "packing": False}
    head = "# Run from this folder: trl sft --config trl.yaml --model_name_or_path MODEL --output_dir OUT\n"
    if "assistant_only_loss" in config:
        head += (
            "# Without assistant_only_loss the loss would also be taken on the prompts. It needs a chat\n"
            "# template with {% generation %} marks; recent TRL adds them for the model families it knows.\n"
        )
    head += "# packing stays off: the default strategy truncates what overflows a block.\n"
    return head + _dump(config)


def _dump(value: dict[str, Any]) -> str:
    # YAML anchors would be right but puzzling: the same dict may stand in two places.
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
