"""The drop-in for bonito-llm: its columns, its order, its errors."""

import pytest

datasets = pytest.importorskip("datasets", reason='needs pip install "taskmill[hf]"')

from taskmill.backends import GENERATORS  # noqa: E402
from taskmill.backends.echo import Echo  # noqa: E402
from taskmill.bonito import Bonito, SamplingParams  # noqa: E402
from taskmill.calls import Completion  # noqa: E402
from taskmill.errors import BackendError  # noqa: E402

PARAMS = SamplingParams(max_tokens=256, top_p=0.95, temperature=0.5, n=1)


class Scripted(Echo):
    """Says what `script` returns for a prompt."""

    script = None

    def generate(self, requests):
        for r in reversed(list(requests)):
            yield Completion(r.key, type(self).script(r.prompt), "stop", 1, 1)


@pytest.fixture
def scripted():
    GENERATORS.register("scripted", lambda name, revision, config: Scripted("bonito"))
    yield Scripted
    GENERATORS.unregister("scripted")


def upstream(prediction, context):
    """What the published package makes of a reply."""
    parts = prediction.split("<|pipe|>")
    if len(parts) != 2:
        return None
    return {"input": parts[0].strip().replace("{{context}}", context.strip()), "output": parts[1].strip()}


def test_output_equals_upstream_for_the_same_replies(scripted):
    texts = ["  First passage. ", "Second passage.", "Third."]
    replies = {
        "First passage.": "Read: {{context}}\nWhat is first?\n<|pipe|>\n passage ",
        "Second passage.": "no marker at all",
        "Third.": "Q {{context}} twice {{context}}<|pipe|>A",
    }
    scripted.script = staticmethod(lambda p: replies[p.split("<|context|>\n")[1].split("\n<|task|>")[0]])
    made = Bonito("scripted:bonito-x").generate_tasks(
        datasets.Dataset.from_dict({"text": texts, "id": [1, 2, 3]}), "text", "exqa", PARAMS
    )
    expected = [upstream(replies[t.strip()], t) for t in texts]
    assert made.column_names == ["input", "output"]
    assert list(made) == [e for e in expected if e]


def test_the_wire_prompt_is_exact(scripted):
    seen = []
    scripted.script = staticmethod(lambda prompt: seen.append(prompt) or "i<|pipe|>o")
    bonito = Bonito("scripted:bonito-x")
    for name in ("nli", "natural language inference"):
        bonito.generate_tasks(datasets.Dataset.from_dict({"t": [" A text. "]}), "t", name, PARAMS)
    wanted = "<|tasktype|>\nnatural language inference\n<|context|>\nA text.\n<|task|>\n"
    assert seen == [wanted, wanted]


def test_n_gives_several_tasks_per_passage(scripted):
    scripted.script = staticmethod(lambda prompt: "i<|pipe|>o")
    made = Bonito("scripted:bonito-x").generate_tasks(
        datasets.Dataset.from_dict({"t": ["One.", "Two."]}), "t", "qg", SamplingParams(n=3)
    )
    assert len(made) == 6


def test_chat_models_work_too_and_nulls_are_passed_over():
    passages = ["A tuple is an immutable sequence of Python objects.", None, ""]
    data = datasets.Dataset.from_dict({"text": passages})
    made = Bonito("echo:").generate_tasks(data, context_col="text", task_type="exqa", sampling_params=PARAMS)
    assert len(made) == 1
    assert "A tuple is" in made[0]["input"]


def test_errors_are_upstreams_kind(scripted):
    data = datasets.Dataset.from_dict({"text": ["x"]})
    with pytest.raises(ValueError, match="Task type exq not recognized"):
        Bonito("echo:").generate_tasks(data, "text", "exq", PARAMS)
    with pytest.raises(ValueError, match="no column 'body'"):
        Bonito("echo:").generate_tasks(data, "body", "exqa", PARAMS)


def test_failed_calls_are_not_left_out_silently(scripted):
    class Down(Echo):
        def generate(self, requests):
            for r in requests:
                yield Completion(r.key, finish="error", error="503 from the server")

    GENERATORS.register("down", lambda name, revision, config: Down())
    try:
        with pytest.raises(BackendError, match="1 of 1 calls failed: 503"):
            Bonito("down:").generate_tasks(
                datasets.Dataset.from_dict({"text": ["Some text here."]}), "text", "exqa", PARAMS
            )
    finally:
        GENERATORS.unregister("down")
