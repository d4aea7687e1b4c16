"""The transformers backend on a tiny, randomly initialised Llama with a character tokenizer, made here."""

from __future__ import annotations

import os
import sys

import pytest

from taskmill.backends.transformers import Transformers, _Draw
from taskmill.calls import Request, Sampling
from taskmill.errors import BackendError, MissingExtra

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .?"
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ m.content }}. {% endfor %}"
)


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"taskmill\[train\]"):
        Transformers("org/name")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    path = tmp_path_factory.mktemp("tiny")
    vocabulary = {c: i for i, c in enumerate(["<s>", "</s>", "<unk>", *CHARACTERS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    core.decoder = tokenizers.decoders.Fuse()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=TEMPLATE
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        # wide weights, so that greedy texts differ between prompts
        initializer_range=0.5,
    )
    model = hf.LlamaForCausalLM(config)
    model.generation_config.repetition_penalty = 5.0  # a default of the checkpoint that must not act
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def backend(folder):
    return Transformers(str(folder), device="cpu", batch_size=4)


WARM = Sampling(temperature=1.0, top_p=1.0, max_tokens=12, seed=7)
COLD = Sampling(temperature=0.0, max_tokens=12)


def prompts(sampling: Sampling, *texts: str) -> list[Request]:
    return [Request(text, sampling, prompt=text) for text in texts]


def test_identity_settings_and_no_telemetry(backend, folder):
    assert backend.model.startswith("transformers:tiny")
    assert "@" in backend.model
    assert backend.batch_invariant is False
    assert Transformers(str(folder), device="cpu", batch_size=1).batch_invariant is True
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["OMP_WAIT_POLICY"]  # threads that wait do not spin


def test_greedy_is_what_the_model_itself_generates(backend):
    torch = pytest.importorskip("torch")
    (answer,) = backend.generate(prompts(COLD, "the river"))
    ids = torch.tensor([backend._tokenizer("the river")["input_ids"]])
    for _ in range(12):
        with torch.inference_mode():
            best = backend._model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best.view(1, 1)], dim=1)
        if best.item() == 1:
            break
    assert answer.text == backend._tokenizer.decode(ids[0, 9:], skip_special_tokens=True)
    assert answer.prompt_tokens == 9
    assert answer.completion_tokens == ids.shape[1] - 9
    assert answer.finish == ("stop" if ids[0, -1] == 1 else "length")


def test_every_request_is_answered_once_whatever_the_mixture(backend):
    requests = prompts(WARM, *(f"passage {'x' * i}" for i in range(30)))
    requests += prompts(COLD, "a", "bb", "ccc")
    requests += [Request("chat", COLD, messages=(("user", "who"),)), Request("empty", COLD, prompt="")]
    answers = {a.key: a for a in backend.generate(iter(requests))}
    assert sorted(answers) == sorted(r.key for r in requests)
    assert answers.pop("empty").error == "no prompt"
    assert {a.finish for a in answers.values()} <= {"stop", "length"}


def test_a_seed_draws_the_same_in_any_company(backend):
    (alone,) = backend.generate(prompts(WARM, "the river"))
    company = prompts(Sampling(1.0, 1.0, 12, (), seed=8), "the stone", "a much longer neighbour", "b")
    texts = {a.key: a.text for a in backend.generate([*company, *prompts(WARM, "the river")])}
    assert texts["the river"] == alone.text
    (other,) = backend.generate(prompts(Sampling(1.0, 1.0, 12, (), seed=99), "the river"))
    assert other.text != alone.text


def test_each_row_ends_at_its_own_limit(backend):
    requests = [Request(str(n), Sampling(1.0, 1.0, n, (), n), prompt="the river") for n in (1, 5, 20)]
    for answer in backend.generate(requests):
        assert answer.completion_tokens <= int(answer.key)
        assert answer.finish == "stop" or answer.completion_tokens == int(answer.key)


def test_stop_strings_cut_the_text_and_the_work(backend):
    (whole,) = backend.generate(prompts(Sampling(1.0, 1.0, 60, (), 3), "the river"))
    stop = whole.text[4:6]
    (cut,) = backend.generate(prompts(Sampling(1.0, 1.0, 60, (stop,), 3), "the river"))
    assert cut.text == whole.text[: whole.text.find(stop)]
    assert cut.finish == "stop"
    assert cut.completion_tokens < whole.completion_tokens


def test_the_chat_template_is_applied_and_may_refuse(backend):
    ask = Request("ok", COLD, messages=(("user", "who"),))
    refused = Request("no", COLD, messages=(("system", "s"), ("user", "who")))
    answers = {a.key: a for a in backend.generate([ask, refused])}
    (plain,) = backend.generate(prompts(COLD, "who. "))
    assert answers["ok"].text == plain.text
    assert "no system turn" in answers["no"].error


def test_a_prompt_beyond_the_context_is_a_failed_call(backend):
    (answer,) = backend.generate(prompts(COLD, "x" * 200))
    assert "the prompt has 200 tokens, over 128" in answer.error


def test_a_model_without_chat_template_says_so(backend, monkeypatch):
    monkeypatch.setattr(backend._tokenizer, "chat_template", None)
    with pytest.raises(BackendError, match="instruct model"):
        list(backend.generate([Request("k", COLD, messages=(("user", "who"),))]))


def test_out_of_memory_halves_the_batch(backend, monkeypatch):
    torch = pytest.importorskip("torch")
    whole, sizes = backend._continue, []

    def tight(batch):
        sizes.append(len(batch))
        if len(batch) > 1 or batch[0][0].key == "huge":
            raise torch.OutOfMemoryError("no more")
        return whole(batch)

    monkeypatch.setattr(backend, "_continue", tight)
    answers = {a.key: a for a in backend.generate(prompts(COLD, "a", "b", "c", "huge"))}
    assert sizes[0] == 4
    assert "out of memory" in answers["huge"].error
    assert {answers[k].error for k in "abc"} == {""}


def test_pickled_weights_are_refused(folder, tmp_path):
    torch = pytest.importorskip("torch")
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BackendError, match="cannot load"):
        Transformers(str(tmp_path), device="cpu")


def test_sampling_follows_the_distribution():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    shares = torch.tensor([0.0, 0.2, 0.0, 0.8, 0.0])
    rows = 2000
    draw = _Draw(torch, list(range(rows)), 1, "cpu")
    left = draw(None, shares.log().expand(rows, -1))
    counts = torch.bincount(left.argmax(dim=-1), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert abs(counts[1].item() / rows - 0.2) < 0.04
