"""A tiny, randomly initialised Llama with a character tokenizer, and rows for it."""

from __future__ import annotations

import random

from taskmill.train import TrainRow

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .?<|>_\n{}…0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]


def make(path, seed=0, bos=False, layers=2):
    """Save a tiny model and its tokenizer under `path`."""
    import tokenizers
    import torch
    import transformers

    vocabulary = {c: i for i, c in enumerate([*SPECIAL, *CHARACTERS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    core.decoder = tokenizers.decoders.Fuse()
    if bos:
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=TEMPLATE,
    ).save_pretrained(path)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def rows(count, seed=0):
    """Rows in Bonito's wire format, four to a passage."""
    rng = random.Random(seed)
    words = ["river", "stone", "cloud", "apple", "tiny", "walks", "runs", "sleeps", "under", "over"]

    def text(n):
        return " ".join(rng.choice(words) for _ in range(n)) + "."

    found = []
    for i in range(count):
        if i % 4 == 0:
            passage = text(rng.randint(3, 20))
        prompt = f"<|tasktype|>\nqa\n<|context|>\n{passage}\n<|task|>\n"
        found.append(
            TrainRow(prompt, f"{text(4)}\n<|pipe|>\n{text(rng.randint(1, 8))}", passage, f"p{i // 4}")
        )
    return found
