"""A student that needs no model: it knows an answer if the rows it learned come near the item."""

import os

from taskmill.ids import draw
from taskmill.train.student import Item, Outcome, grade


class Stub:
    """Right with a chance that grows with the words learned; the luck of seed and item is a hash."""

    name = "stub"

    def __init__(self, stop_at=-1, kill=False, seconds=1e-3):
        self.calls, self.learned, self.stop_at, self.kill, self.seconds = [], [], stop_at, kill, seconds

    def lengths(self, examples):
        counts = [len(e.instruction.split()) + len(e.response.split()) for e in examples]
        return [n if n < 400 else f"{n} tokens do not fit 400" for n in counts]

    def learn(self, rows, items: list[Item], seed, times, folder, on_step=None, begin=None, texts=()):
        if len(self.calls) == self.stop_at:
            folder.mkdir(parents=True)
            (folder / "log.jsonl").write_text("half a li")
            if self.kill:
                os._exit(9)
            raise KeyboardInterrupt
        self.calls.append((len(rows), seed, times, folder.parent.name))
        self.learned.append([e.id for e in rows])
        known = min(1.0, len(rows) / 40)
        if on_step is not None:
            on_step(1, 1, 0.5, 100.0, 0.0)
        answers = []
        for item in items:
            luck = draw(seed, item.example.instruction, f"luck {len(rows)}") / 2**63
            wrong = next((c for c in item.choices if c != item.example.response), "?")
            answers.append(item.example.response if luck < 0.3 + 0.6 * known else wrong)
        marks = [grade(item, answer) for item, answer in zip(items, answers, strict=True)]
        cost = self.seconds * sum(self.lengths(rows)) * times
        return Outcome(answers, marks, cost, 1e-4 * len(items), cost + 1e-4 * len(items) + 0.01, {"steps": 1})
