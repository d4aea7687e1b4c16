"""The sixteen types, their words, and a seventeenth from outside."""

import pytest

from taskmill.errors import ConfigError, UnknownName, UsageError
from taskmill.record import Document, Reason, content_id
from taskmill.tasks import TASKS, TaskType, get, names
from taskmill.tasks.base import Ask, Attributes, Draft, Rejected
from taskmill.tasks.rules import needs_context, question_of
from taskmill.templates import words
from taskmill.testing import PASSAGE, check_task

BUILT_IN = {
    "exqa": "extractive question answering",
    "mcqa": "multiple-choice question answering",
    "qg": "question generation",
    "qa": "question answering without choices",
    "ynqa": "yes-no question answering",
    "coref": "coreference resolution",
    "paraphrase": "paraphrase generation",
    "paraphrase_id": "paraphrase identification",
    "sent_comp": "sentence completion",
    "sentiment": "sentiment",
    "summarization": "summarization",
    "text_gen": "text generation",
    "topic_class": "topic classification",
    "wsd": "word sense disambiguation",
    "te": "textual entailment",
    "nli": "natural language inference",
}
DOCUMENT = Document(content_id(PASSAGE), PASSAGE)


class Rhyme(TaskType):
    """A task type as a third party would write it."""

    name = "rhyme"
    title = "rhyme finding"
    parts = ("rhyme",)

    def build(self, reply, ask):
        instruction, template = self.instruction(ask, word=ask.document.text.split()[-1])
        return Draft(instruction, reply.get("rhyme", ""), template=template)

    def check(self, example):
        return needs_context(example) or (None if example.response else Rejected(Reason.EMPTY_REPLY))

    def grade(self, prediction, example):
        return float(prediction == example.response)

    def sample(self, ask):
        return {"rhyme": "stone"}


class Leaky(Rhyme):
    name = "rhyme"

    def build(self, reply, ask):
        return Draft("{{context}} " + ask.document.text, reply.get("rhyme", ""))


@pytest.fixture
def rhyme():
    TASKS.register("rhyme", Rhyme())
    words.register("rhyme", "Find a rhyme.{{ language }}", ["{{context}}\nFind a rhyme for {{ word }}."])
    yield get("rhyme")
    TASKS.unregister("rhyme")
    words._extra.pop("rhyme")
    words._environment.cache_clear()


def test_there_are_exactly_sixteen_built_in_types_under_both_names():
    assert {n: get(n).title for n in names()} == BUILT_IN
    for short, title in BUILT_IN.items():
        assert get(title) is get(title.upper()) is get(short)
        assert get(short).name == short
    with pytest.raises(UnknownName, match="exqa"):
        get("exqq")
    with pytest.raises(UsageError):
        TASKS.register("exqa", Rhyme())


@pytest.mark.parametrize("name", names())
def test_the_kit_accepts_every_built_in_type(name):
    check_task(get(name))


@pytest.mark.parametrize("name", names())
def test_the_kit_accepts_other_languages_counts_and_labels(name):
    check_task(get(name), attributes=Attributes(language="German", count=2))
    if get(name).labels:
        check_task(get(name), attributes=Attributes(labels=("agree", "disagree", "unsure")))


@pytest.mark.parametrize("name", names())
def test_wordings_are_several_and_quote_the_passage_once(name):
    wordings = words.load()[name]["instruction"]
    assert len(wordings) >= 4
    assert len(set(wordings)) == len(wordings)
    for wording in wordings:
        assert wording.count("{{context}}") == (0 if name == "text_gen" else 1)


@pytest.mark.parametrize("name", ["exqa", "mcqa", "qa", "ynqa"])
def test_no_wording_asks_on_its_own(name):
    """A wording that passes for a question would hide that the model's text is none."""
    for i in range(len(words.load()[name]["instruction"])):
        slots = {"question": "the boats", "options": "A. x", "labels": "Yes or No"}
        assert question_of(words.instruction(name, i, slots)[0]) == ""


def test_all_prompts_start_with_the_same_passage():
    prompts = [get(n).ask(DOCUMENT, seed=1).messages[0][1] for n in names()]
    prefix = f"Passage:\n{PASSAGE}\n\n"
    assert all(prompt.startswith(prefix) for prompt in prompts)
    assert len({prompt[len(prefix) :] for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("name", names())
def test_prompts_demand_language_and_count(name):
    plain = get(name).ask(DOCUMENT).messages[0][1]
    french = get(name).ask(DOCUMENT, attributes=Attributes(language="French")).messages[0][1]
    assert "French" in french
    assert "French" not in plain
    three = get(name).ask(DOCUMENT, attributes=Attributes(count=3))
    assert three.max_tokens == 3 * get(name).ask(DOCUMENT).max_tokens
    if name not in ("coref", "sentiment", "topic_class", "wsd", "paraphrase_id"):
        assert "3" in three.messages[0][1].removeprefix(f"Passage:\n{PASSAGE}")


def test_labels_stand_in_the_prompt_and_balance_over_samples():
    ask = get("topic_class").ask(DOCUMENT, attributes=Attributes(labels=("fish", "boats")))
    assert "fish or boats" in ask.messages[0][1]
    drawn = [get("ynqa").ask(DOCUMENT, sample=s).fields["label"] for s in range(6)]
    assert drawn.count("Yes") == drawn.count("No") == 3


def test_what_a_passage_lacks_makes_it_not_applicable():
    for name in ("coref", "wsd", "te", "nli", "paraphrase", "paraphrase_id"):
        ask = get(name).ask(Document("d", "word"))
        assert isinstance(ask, Rejected)
        assert ask.reason == Reason.NOT_APPLICABLE


def test_a_seventeenth_type_brings_its_words(rhyme):
    assert "rhyme" in names()
    check_task(rhyme)
    ask = rhyme.ask(DOCUMENT)
    assert isinstance(ask, Ask)
    assert ask.messages[0][1] == f"Passage:\n{PASSAGE}\n\nFind a rhyme."


def test_a_passage_slot_puts_the_passage_where_it_stands(rhyme):
    words.register("rhyme", "Rhyme with: {{ passage }}!", ["{{context}} {{ word }}"])
    assert rhyme.ask(DOCUMENT).messages[0][1] == f"Rhyme with: {PASSAGE}!"


def test_a_type_without_words_says_so():
    with pytest.raises(ConfigError, match="rhyme"):
        Rhyme().ask(DOCUMENT)


def test_the_kit_refuses_a_type_that_leaks_markers(rhyme):
    with pytest.raises(AssertionError, match="marker"):
        check_task(Leaky())


def test_the_kit_names_what_is_wrong(rhyme):
    class Silent(Rhyme):
        def sample(self, ask):
            return {"rhyme": ""}

    class Generous(Rhyme):
        def grade(self, prediction, example):
            return 1.0

    with pytest.raises(AssertionError, match="rejected"):
        check_task(Silent())
    with pytest.raises(AssertionError, match="wrong answer"):
        check_task(Generous())
