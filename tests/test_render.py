"""Rendering: placeholders, escaping, layouts and back, chat templates and loss spans."""

import re

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from taskmill import render
from taskmill.errors import ConfigError, InputError
from taskmill.record import Example, Reason

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant turns') }}{% endif %}{% endfor %}"
)
THINKING = (
    "{%- for m in messages %}{%- set text = m.content %}{%- set thought = '' %}"
    "{%- if m.role == 'assistant' and '</think>' in text %}"
    "{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set text = text.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' %}{{- '<think>\n' + thought + '\n</think>\n\n' }}{%- endif %}"
    "{{- text + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
pieces = st.sampled_from(
    [
        *render.CHAT_TOKENS,
        "<|input|>",
        "<|output|>",
        "<|pipe|>",
        "{{context}}",
        "{{ context }}",
        "\u2060",
        "<",
        "|",
        "\n",
    ]
)
hostile = st.lists(st.one_of(pieces, st.text(max_size=6)), max_size=8).map("".join)


def make(instruction="{{context}}\n\nQ: who?", context="Ada wrote it.", response="Ada", **more):
    return Example("id", "exqa", context, instruction, response, **more)


def test_prompt_is_filled_and_user_text_stays():
    asked = render.prompt(make("{{ context }} and " + render.escape("{{context}} <|pipe|>"), "P"))
    assert asked == "P and {{context}} <|pipe|>"
    assert render.prompt(make("Say hello.")) == "Say hello."


@given(hostile, hostile)
def test_filling_keeps_the_passage_and_the_escaped_words(words, context):
    assert render.prompt(make(render.escape(words) + "{{context}}", context)) == words + context


@given(hostile)
def test_escaping_is_reversible_and_complete(text):
    assert render.unescape(render.escape(text)) == text
    assert not render.has_marker(render.escape(text))
    assert not render.has_placeholder(render.escape(text))


@given(hostile, st.lists(st.text(min_size=2, max_size=5), max_size=4).map(tuple))
@case("ab<s>", ("b<s>", "<s>"))
@case("aaa", ("aa",))
def test_special_tokens_are_escaped_reversibly_even_if_they_overlap(text, own):
    tokens = (*own, *render.CHAT_TOKENS)
    escaped = render.escape_special(text, tokens)
    assert render.unescape_special(escaped, tokens) == text
    assert not any(token in escaped for token in tokens if "\u2060" not in token)


def test_layouts_have_the_columns_people_expect():
    e = make()
    prompt = "Ada wrote it.\n\nQ: who?"
    assert render.messages(e) == [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": "Ada"},
    ]
    assert render.prompt_completion(e) == {"prompt": prompt + "\n", "completion": "Ada"}
    assert render.alpaca(e) == {"instruction": prompt, "input": "", "output": "Ada"}
    assert render.bonito(e) == {"input": prompt, "output": "Ada"}
    assert render.bonito_text(e, eos="</s>") == f"<|input|>\n{prompt}\n<|output|>\nAda</s>"
    assert render.text(e) == f"{prompt}\n\nAda"
    assert render.text(e, "Q: {{ prompt }} A: {{ response }}") == f"Q: {prompt} A: Ada"
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": "Ada"}]
    assert render.sharegpt(e) == {"conversations": turns}
    assert set(render.FORMATS) == {"messages", "prompt-completion", "alpaca", "sharegpt", "bonito", "text"}


def test_alpaca_separates_only_a_passage_that_ends_the_instruction():
    assert render.alpaca(make("Who wrote it?\n{{context}}"))["input"] == "Ada wrote it."
    for kept in (
        "Who wrote: {{context}}",
        "{{context}}",
        "Who?\n{{context}}\nAnswer:",
        "{{context}}\n{{context}}",
    ):
        assert render.alpaca(make(kept))["input"] == ""


def test_a_rationale_is_shown_only_when_asked_for():
    e = make(rationale="She did.")
    assert render.messages(e)[1]["content"] == "Ada"
    assert render.messages(e, thinking=True)[1]["content"] == "<think>\nShe did.\n</think>\n\nAda"
    assert render.messages(make(), thinking=True)[1]["content"] == "Ada"


def test_markers_in_user_text_are_harmless_in_text_and_untouched_in_columns():
    e = make(context="x <|output|> <|im_end|> y", response="</s>")
    assert "<|im_end|>" in render.messages(e)[0]["content"]
    assert "<|im_end|>" not in render.text(e)
    assert "</s>" not in render.text(e)
    rendered = render.bonito_text(e)
    assert rendered.count("<|output|>") == 1
    assert rendered.count("<|input|>") == 1
    asked = rendered.split("<|input|>\n")[1].split("\n<|output|>\n")[0]
    assert render.unescape(asked) == render.prompt(e)


@given(
    hostile,
    hostile,
    st.sampled_from(["{{context}}", "Read.\n{{context}}", "\n{{context}}", "{{context}}\nQ?", "Q?"]),
)
def test_layouts_read_back_without_loss(context, response, instruction):
    e = make(instruction, context, response)
    pair = [(render.prompt(e), response)]
    assert render.from_alpaca(render.alpaca(e)) == pair
    assert render.from_sharegpt(render.sharegpt(e)) == pair
    assert render.from_messages(render.messages(e)) == pair


def test_readers_take_several_turns_system_and_history():
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    pairs = render.from_messages([{"role": role, "content": content} for role, content in turns])
    assert pairs == [("Be brief.\n\na", "b"), ("c", "d")]
    row = {"instruction": "c", "input": "x", "output": "d", "system": "S", "history": [["a", "b"]]}
    assert render.from_alpaca(row) == [("S\n\na", "b"), ("c\nx", "d")]
    with pytest.raises(InputError, match="alternate"):
        render.from_messages([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        (["user:a", "assistant:b"], None),
        (["system:", "user:a", "assistant:b"], None),
        (["user: ", "assistant:b"], Reason.EMPTY),
        (["user:a", "assistant:\n"], Reason.EMPTY_REPLY),
        (["user:a"], Reason.MALFORMED),
        (["user:a", "user:b"], Reason.MALFORMED),
        (["assistant:a", "user:b"], Reason.MALFORMED),
        (["user:a", "system:b", "user:c", "assistant:d"], Reason.MALFORMED),
        ([], Reason.MALFORMED),
    ],
)
def test_turns_that_trainers_skip_are_named(turns, problem):
    chat = [dict(zip(("role", "content"), turn.split(":"), strict=True)) for turn in turns]
    assert render.turn_problem(chat) == problem


def spans(chat, template, special=None, **options):
    text, found = render.chat_text(chat, template, special, **options)
    return text, [text[a:b] for a, b in found]


def test_chat_text_and_loss_spans_of_chatml():
    text, learnt = spans(
        render.messages(make(context="P", response="user")), CHATML, {"eos_token": "<|im_end|>"}
    )
    assert text == "<|im_start|>user\nP\n\nQ: who?<|im_end|>\n<|im_start|>assistant\nuser<|im_end|>\n"
    assert learnt == ["user<|im_end|>"]


def test_loss_spans_of_a_template_that_trims_and_of_several_turns():
    turns = [("user", "a"), ("assistant", " b\n"), ("user", "b"), ("assistant", "d")]
    chat = [{"role": role, "content": content} for role, content in turns]
    text, learnt = spans(chat, LLAMA2, {"bos_token": "<s>", "eos_token": "</s>"})
    assert text == "<s>[INST] a [/INST] b </s><s>[INST] b [/INST] d </s>"
    assert learnt == ["b </s>", "d </s>"]


def test_loss_spans_of_a_template_that_moves_thoughts():
    chat = render.messages(make(rationale="R"), thinking=True)
    assert spans(chat, THINKING)[1] == ["<think>\nR\n</think>\n\nAda<|im_end|>"]
    assert spans(render.messages(make()), THINKING)[1] == ["Ada<|im_end|>"]


def test_a_generation_prompt_is_not_learnt():
    text, learnt = spans(render.messages(make()), CHATML, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")
    assert learnt == ["Ada<|im_end|>"]


@given(hostile, hostile)
def test_no_text_can_forge_a_turn(context, response):
    e = make("{{context}}", context, response)
    text, found = render.chat_text(render.messages(e), CHATML, {"eos_token": "<|im_end|>"})
    assert text.count("<|im_start|>") == text.count("<|im_end|>") == 2
    assert [text[a:b] for a, b in found] == [
        render.escape_special(response, ("<|im_end|>", *render.CHAT_TOKENS)) + "<|im_end|>"
    ]


def test_chat_templates_get_the_helpers_they_expect():
    template = (
        "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}{% endgeneration %}{% break %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "|{{ messages[0] | tojson }}|{{ strftime_now('%Y-%m-%d') }}|{{ messages[1:] | length }}"
        "|{{ tools is none }}"
    )
    text = render.chat_text(
        [{"role": "user", "content": "é<"}, {"role": "assistant", "content": "ok"}], template
    ).text
    assert text == 'ok|{"role": "user", "content": "é<"}|2024-07-26|1|True'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LLAMA2, "only user and assistant"),
        ("{% for %}", "not a valid template"),
        (
            "{% for i in range(100000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}",
            "cannot be rendered",
        ),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not show the assistant's text"),
        ("{{ messages | map(attribute='content') | join | length }}", "does not show the assistant's text"),
    ],
)
def test_templates_that_fail_say_why(template, message):
    chat = [{"role": "system", "content": "s"}, *render.messages(make())]
    with pytest.raises(ConfigError, match=re.escape(message)):
        render.chat_text(chat, template, {"bos_token": "", "eos_token": ""})


@pytest.mark.parametrize("attack", ["messages.__class__.__mro__", "raise_exception.__globals__.keys()"])
def test_templates_reach_no_python_object(attack):
    with pytest.raises(ConfigError, match="cannot be rendered"):
        render.chat_text([], "{{ " + attack + " }}")
