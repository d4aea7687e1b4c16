"""Fine-tuning: rows of (prompt, completion) → a LoRA adapter, or a whole model, with its record.

One core trains all three journeys (synthesizer, next-word prediction on plain text, students); they
differ only in how their rows are made. PEFT makes the adapter; the loop is our own, because batches by
tokens, logits at supervised positions only and bit-exact resumption leave little of a trainer to reuse.
"""

from __future__ import annotations

from taskmill.train.config import TrainConfig
from taskmill.train.loop import train
from taskmill.train.rows import TrainRow, student_rows, synthesizer_rows, tapt_rows

__all__ = ["TrainConfig", "TrainRow", "student_rows", "synthesizer_rows", "tapt_rows", "train"]
