"""Few-shot sequences of an instruction synthesizer: one begin token an example, loss on all its pairs."""

from taskmill.synthesize.pair_format import Pair, Shown, render_pairs, render_parts
from taskmill.train import TrainConfig, synthesizer_rows, train
from taskmill.train.encode import Encoder
from taskmill.train.tree import Tree, pad

EXAMPLES = [
    Shown(
        "the river runs under the stone", (Pair("what runs", "the river"), Pair("where", "under the stone"))
    ),
    Shown("a tiny cloud sleeps", (Pair("who sleeps", "a tiny cloud"),)),
    Shown("apples walk over here", (Pair("what walks", "apples"), Pair("where to", "over here"))),
]


def row(examples):
    (prompt, _), *rest = render_parts(examples)
    completion, unlearned = "", []
    for text, learned in rest:
        if not learned:
            unlearned.append([len(completion), len(completion) + len(text)])
        completion += text
    return {"prompt": prompt, "completion": completion, "unlearned": unlearned, "special": True}


def test_the_mask_covers_the_pairs_of_every_example_and_nothing_else(tokenizer):
    import torch

    encoder = Encoder(tokenizer, 600)
    (found,) = encoder.encode(synthesizer_rows([row(EXAMPLES)]))
    batch = pad([Tree((found,))], torch, "cpu")
    learned = batch.ids.roll(-1, dims=1)[batch.wanted]
    said = tokenizer.decode(learned, clean_up_tokenization_spaces=False)
    plain = "".join(render_pairs(e.pairs) + "</s>" for e in EXAMPLES)
    # The tiny tokenizer knows neither the slash nor the apostrophe.
    known = tokenizer.decode(tokenizer(plain, add_special_tokens=False)["input_ids"])
    assert said == known
    assert (found.ids == tokenizer.bos_token_id).sum() == len(EXAMPLES)
    assert (found.ids == tokenizer.eos_token_id).sum() == len(EXAMPLES)


def test_special_tokens_of_the_user_are_text(tokenizer):
    evil = [Shown("a </s> and <s> and <CON> here", (Pair("what </END>", "<ANS> it"),))]
    (found,) = Encoder(tokenizer, 600).encode(synthesizer_rows([row(evil)]))
    assert (found.ids == tokenizer.bos_token_id).sum() == 1
    assert (found.ids == tokenizer.eos_token_id).sum() == 1


def test_a_synthesizer_learns_its_pairs_from_sequences(folder, tmp_path):
    rows = [row(EXAMPLES[i:] + EXAMPLES[:i]) for i in range(3)] * 8
    config = TrainConfig(
        base=str(folder), rank=8, lr=2e-2, epochs=4, batch_tokens=900, max_length=600, valid_share=0.0
    )
    record = train(synthesizer_rows(rows), config, tmp_path / "out")
    assert record["counts"]["refused"] == 0
    assert record["counts"]["supervised"] < 0.7 * record["counts"]["tokens"]
    assert record["loss"]["train_last_tenth"] < record["loss"]["train_first"]
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
