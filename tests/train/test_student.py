"""A student's answers against plain transformers: log-likelihoods of choices, greedy texts, and its marks."""

from dataclasses import replace

import numpy as np
import pytest

from taskmill.errors import InputError
from taskmill.record import Document, Example
from taskmill.tasks import get
from taskmill.train import TrainConfig
from taskmill.train.answers import likelihoods, prompt, written
from taskmill.train.encode import Encoded
from taskmill.train.loss import Supervised
from taskmill.train.rows import tapt_rows
from taskmill.train.student import Item, Student, grade, metric
from taskmill.train.tree import trees

YES_NO = ("yes", "no", "not at all")


def example(i, response="yes", **other):
    return Example(f"e{i}", "", "", f"is {i} more than {i * 7 % 5}?", response, **other)


@pytest.fixture
def student(folder):
    config = TrainConfig(base=str(folder), rank=4, lr=1e-2, epochs=12, batch_tokens=300)
    return Student(config, max_new_tokens=8)


def plain(folder, tokenizer, prompt, choice):
    """The log-likelihoods of a choice's tokens and its end, one pass, no tricks."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": choice}]
    before = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    whole = whole[: whole.rindex("<|im_end|>") + len("<|im_end|>")]
    ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = len(tokenizer(before, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
    return [float(logprobs[at - 1, ids[0, at]]) for at in range(start, ids.shape[1])]


@pytest.mark.parametrize("norm", ["sum", "mean"])
def test_the_likeliest_choice_is_chosen(folder, tokenizer, tmp_path, norm):
    student = Student(TrainConfig(base=str(folder)), norm=norm)
    items = [Item(example(i), YES_NO) for i in range(6)]
    outcome = student.learn([], items, 0, 1.0, tmp_path / "none")
    for item, answer in zip(items, outcome.answers, strict=True):
        found = {c: plain(folder, tokenizer, item.example.instruction, c) for c in YES_NO}
        scores = {c: sum(f) / (len(f) if norm == "mean" else 1) for c, f in found.items()}
        assert answer == max(scores, key=scores.get)
    assert set(outcome.answers) <= set(YES_NO)


def test_prompts_that_begin_alike_are_read_once_and_answered_as_alone(folder, tmp_path, monkeypatch):
    read, logits = [], Supervised.logits

    def counted(self, batch, *rest):
        read.append(batch.ids.numel())
        return logits(self, batch, *rest)

    monkeypatch.setattr(Supervised, "logits", counted)
    choices = (*YES_NO, "x" * 20, "")
    wordings = ["{{context}} what?", "{{context}}\nso?", "{{context}} is it 3?", "now {{context}}"]
    asked = [
        replace(example(i), context=f"{i} " + "river stone " * (4 + i), instruction=wording)
        for i in (0, 3, 1)
        for wording in wordings
    ]
    items = [item for e in asked for item in (Item(e), Item(e, choices))]
    answers, tokens = {}, {}
    for prefix in ("shared", "own"):
        student = Student(TrainConfig(base=str(folder), prefix=prefix), max_new_tokens=8)
        student.learn([], items, 0, 1.0, tmp_path / "none")  # tries what the model takes
        read.clear()
        answers[prefix] = student.learn([], items, 0, 1.0, tmp_path / "none").answers
        tokens[prefix] = sum(read)
    assert answers["shared"] == answers["own"]
    assert tokens["shared"] < tokens["own"] / 2


def test_what_is_written_and_how_likely_ends_are_is_that_of_one_pass_without_a_cache(folder):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    supervised = Supervised(model, model.get_output_embeddings(), torch)
    ids = np.random.default_rng(0).integers(6, 60, (7, 60)).astype(np.uint32)
    ids[:3, :30], ids[3:5, :40] = ids[0, :30], ids[3, :40]
    rows = [prompt(Encoded(line[: 45 + 2 * i], 44 + 2 * i, group=str(i > 2))) for i, line in enumerate(ids)]
    found = list(trees(rows, 200))
    assert sorted(len(tree.rows) for tree in found) == [1, 1, 2, 3]

    def alone(row, more):
        with torch.no_grad():
            logits = model(torch.tensor([[*row.ids.tolist(), *more]])).logits[0]
        return torch.log_softmax(logits, dim=-1)

    first = {int(alone(row, [])[-1].argmax()) for row in rows}
    for stops in (set(), {min(first)}):
        with torch.no_grad():
            texts = written(supervised, found, transformers.DynamicCache(), "cpu", stops, 6)
        for tree, own in zip(found, texts, strict=True):
            for row, text in zip(tree.rows, own, strict=True):
                expected = []
                while len(expected) < 6 and (token := int(alone(row, expected)[-1].argmax())) not in stops:
                    expected.append(token)
                assert text == expected
    ends = [[[[5], [7, 8, 9], [7, 8]][: 1 + n] for n in range(len(tree.rows))] for tree in found]
    with torch.no_grad():
        scored = likelihoods(supervised, found, transformers.DynamicCache(), "cpu", ends)
    for tree, own, likely in zip(found, ends, scored, strict=True):
        for row, mine, parts in zip(tree.rows, own, likely, strict=True):
            for end, part in zip(mine, parts, strict=True):
                logprobs = alone(row, end)[len(row.ids) - 1 : -1]
                expected = logprobs[range(len(end)), end]
                assert torch.allclose(part, expected, atol=1e-5)


def test_free_answers_are_greedy_whatever_stands_beside_them(folder, tokenizer, student, tmp_path):
    items = [Item(replace(example(i), instruction="river " * i + "stone?")) for i in range(1, 12)]
    outcome = student.learn([], items, 0, 1.0, tmp_path / "none")
    alone = [student.learn([], [item], 0, 1.0, tmp_path / "none").answers[0] for item in items]
    assert outcome.answers == alone
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    for item, answer in zip(items[:3], outcome.answers, strict=False):
        turn = [{"role": "user", "content": item.example.instruction}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        begin = len(ids)
        with torch.no_grad():
            while len(ids) < begin + 8 and not (len(ids) > begin and ids[-1] in ends):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(ids[begin:], skip_special_tokens=True).strip()


def test_a_student_learns_and_the_base_stays_as_it_was(student, tmp_path):
    rows = [
        replace(example(i, ("no", "yes")[i % 2]), instruction=f"say {'ba'[i % 2]} {i}") for i in range(40)
    ]
    items = [Item(e) for e in rows[:10]] + [Item(e, ("yes", "no")) for e in rows[:10]]
    before = student.learn([], items, 0, 1.0, tmp_path / "none")
    after = student.learn(rows, items, 0, 1.0, tmp_path / "one")
    assert sum(after.marks[:10]) > sum(before.marks[:10])
    assert after.record["counts"]["train"] == 40
    assert after.record["counts"]["tokens"] == sum(student.lengths(rows))
    assert student.learn([], items, 0, 1.0, tmp_path / "none").answers == before.answers
    found_again = student.learn(rows, items, 0, 1.0, tmp_path / "one")  # finished: answered again only
    assert found_again.answers == after.answers
    twice = student.learn(rows, items, 0, 2.0, tmp_path / "twice")
    assert twice.record["steps"] == 2 * after.record["steps"]


def test_what_cannot_be_learned_is_said_row_by_row(student):
    long = replace(example(1), instruction="word " * 2000)
    found = student.lengths([example(0), long, example(2)])
    assert isinstance(found[0], int)
    assert isinstance(found[2], int)
    assert "tokens do not fit" in found[1]


def test_the_name_holds_what_decides_the_outcome(folder):
    names = {
        Student(TrainConfig(base=str(folder), **settings), **how).name
        for settings, how in [
            ({}, {}),
            ({"lr": 1e-3}, {}),
            ({"epochs": 2.0}, {}),
            ({}, {"layout": "bonito"}),
            ({}, {"norm": "mean"}),
            ({}, {"max_new_tokens": 5}),
        ]
    }
    assert len(names) == 6
    same = {Student(TrainConfig(base=str(folder), **s)).name for s in ({}, {"seed": 3}, {"evaluations": 2})}
    assert len(same) == 1


def test_a_model_trained_whole_answers_too(folder, tmp_path):
    config = TrainConfig(base=str(folder), method="full", lr=1e-3, batch_tokens=400)
    outcome = Student(config).learn(
        [example(i) for i in range(8)], [Item(example(9), YES_NO)], 0, 1.0, tmp_path
    )
    assert (tmp_path / "model").is_dir()
    assert outcome.answers[0] in YES_NO


def test_marks_are_by_the_task_types_own_metric():
    known = Item(replace(example(0, "Yes"), task="ynqa"), ("Yes", "No"))
    assert metric(known) == get("ynqa").metric
    assert grade(known, "Yes") == 1
    assert grade(known, "No") == 0
    closed, free = Item(example(0), YES_NO), Item(example(0, "the old harbour"))
    assert (metric(closed), metric(free)) == ("accuracy", "token F1")
    assert (grade(closed, "yes"), grade(closed, "no")) == (1, 0)
    assert grade(free, "an old harbour town") == pytest.approx(0.8)


def test_no_rows_at_all_is_an_error_of_training(student, tmp_path):
    with pytest.raises(InputError):
        student.learn([replace(example(0), instruction="word " * 2000)], [], 0, 1.0, tmp_path)


TEXTS = ("river stone lamp river road stone lamp lamp " * 9, "stone road river")


def test_a_document_is_as_long_as_the_tokens_that_are_read_of_it(folder, student):
    rows = [Document("a", TEXTS[0]), example(1), Document("b", "  "), Document("c", TEXTS[1])]
    found = student.lengths(rows)
    assert found[1] == student.lengths([example(1)])[0]
    assert found[2] == "there is no text"
    for row, length in zip(rows, found, strict=True):
        if isinstance(row, Document) and isinstance(length, int):
            parts = list(tapt_rows([row], student.config.max_length, student._tokenizer))
            ids = [student._tokenizer(p.completion, add_special_tokens=False)["input_ids"] for p in parts]
            assert length == sum(map(len, ids)) + 1  # the end token, once


def test_documents_are_learned_as_plain_text_and_beside_examples(folder, student, tmp_path):
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
    before = student.learn([], [], 0, 1.0, tmp_path / "none", texts=TEXTS)
    after = student.learn([*documents, example(1)], [], 0, 1.0, tmp_path / "one", texts=TEXTS)
    own = student.lengths([*documents, example(1)])
    assert after.record["counts"]["tokens"] == sum(own)
    for (loss, tokens), (other, same) in zip(before.losses, after.losses, strict=True):
        assert tokens == same
        assert other < loss  # it was read in training


def test_the_loss_of_a_text_is_that_of_plain_transformers(folder, tokenizer, student, tmp_path):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    outcome = student.learn([], [], 0, 1.0, tmp_path / "none", texts=TEXTS[1:])
    ids = tokenizer(TEXTS[1], add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].float()
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    ((loss, tokens),) = outcome.losses
    assert tokens == ids.shape[1] - 1
    assert loss == pytest.approx(float(expected), rel=1e-5)
