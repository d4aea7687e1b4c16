"""A student that needs no model: what it learned decides how often it is right; and passages to learn."""

import os
import random

import pyarrow as pa
import pyarrow.parquet as pq

from taskmill.ids import draw
from taskmill.record import Document
from taskmill.train.student import Outcome

WORDS = [
    "river", "stone", "cloud", "bridge", "lantern", "harbour", "meadow", "engine", "violin", "copper",
]  # fmt: skip


def passage(number):
    chance = random.Random(number)

    def word():
        return chance.choice(WORDS)

    return " ".join(
        f"The {word()} of {word()} number {number} stands near the {word()} and holds "
        f"{chance.randint(10, 99)} {word()}s every {word()} day."
        for _ in range(4)
    )


def questions(count, first=1000):
    texts = [passage(first + i) for i in range(count)]
    return [
        {"context": text, "question": f"Which thing is near number {i}?", "answers": [text.split()[1]]}
        for i, text in enumerate(texts)
    ]


def write(path, rows, order=None):
    pq.write_table(pa.Table.from_pylist(rows if order is None else [rows[i] for i in order]), path)
    return str(path)


class Pupil:
    """Right with a chance that grows with the rows learned (passages teach half as much); luck is a hash."""

    name = "pupil"

    def __init__(self, stop_at=-1, kill=False, forgets=0.0, seconds=1e-4):
        self.calls, self.learned = [], []
        self.stop_at, self.kill, self.forgets, self.seconds = stop_at, kill, forgets, seconds

    def lengths(self, rows):
        return [self._length(row) for row in rows]

    def _length(self, row):
        text = row.text if isinstance(row, Document) else f"{row.context} {row.instruction} {row.response}"
        count = len(text.split())
        return count if count < 400 else f"{count} tokens do not fit 400"

    def learn(self, rows, items, seed, times, folder, on_step=None, *, texts=()):
        if len(self.calls) == self.stop_at:
            folder.mkdir(parents=True)
            (folder / "log.jsonl").write_text("half a li")
            if self.kill:
                os._exit(9)
            raise KeyboardInterrupt
        self.calls.append((len(rows), seed, times, folder.parent.name))
        self.learned.append(list(rows))
        if on_step is not None and rows:
            on_step(1, 1, 0.5, 100.0, 0.0)
        known = sum(0.2 if isinstance(row, Document) else 1.0 for row in rows)
        chance = 0.2 + 0.7 * min(1.0, known / 40)
        answers = [self._answer(item, chance if known else 0.15, seed, known) for item in items]
        read = sum(n for n in self.lengths(rows) if isinstance(n, int)) * times
        worse = 1.0 + self.forgets * bool(rows)
        losses = [(2.0 * worse * len(text.split()), len(text.split())) for text in texts]
        took = self.seconds * read
        return Outcome(
            answers, [0.0] * len(items), took, 1e-4 * len(items), took + 1e-4 * len(items) + 0.01,
            {"steps": 1}, losses,
        )  # fmt: skip

    def _answer(self, item, chance, seed, known):
        example = item.example
        wrong = next((c for c in item.choices if c != example.response), "something else")
        if example.id.startswith("probe/"):
            kept = not self.forgets or not known
            return example.response if kept else wrong
        luck = draw(seed, example.id, f"luck {known}") / 2**63
        return example.response if luck < chance else wrong
