"""Evaluation: outputs and scores of a model → answers, marks, averages and what they prove."""

__all__: list[str] = []
