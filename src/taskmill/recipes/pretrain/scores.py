"""Answers and losses of models → marks by target, what the pairs gain, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import numpy as np

from taskmill.evaluate.crossed import Interval, contrast, interval, shown
from taskmill.recipes.pretrain.config import PretrainConfig
from taskmill.recipes.pretrain.rows import Asked, Probe
from taskmill.tasks.metrics import squad_f1
from taskmill.train.student import grade

__all__ = ["judged", "marks_of"]

Array = np.ndarray[Any, Any]


def marks_of(probes: Sequence[Probe], answers: Sequence[str]) -> list[float]:
    """Return the mark of each answer, 0 to 1: right choice, or the best token F1 over all right answers."""
    return [
        max(grade(p.item, answer), 0.0 if p.item.choices else squad_f1(answer, p.golds))
        for p, answer in zip(probes, answers, strict=True)
    ]


def judged(config: PretrainConfig, asked: Asked, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return means and intervals of every arm on every target, what arms differ by, and the retention.

    `done`: what unit.json holds of each unit. Arms are held against each other on the same questions and
    seeds; the base, which has one model, against each seed.
    """
    seed, confidence = config.train.seed, config.confidence
    arms = _arms(done)
    places = _places(asked)
    found: dict[str, Any] = {"targets": {}, "retention": {"questions": {}}, "claims": []}
    for name, (at, general) in places.items():
        own = {arm: marks[:, at] for arm, marks in arms["marks"].items()}
        lines = {arm: _line(m, confidence, seed) for arm, m in own.items()}
        (found["retention"]["questions"] if general else found["targets"])[name] = lines
        if not general:
            found["claims"] += _gains(name, own, confidence, seed)
        else:
            found["claims"] += _kept(name, own, config)
    found["retention"]["perplexity"] = _perplexity(arms["losses"], config)
    return found


def _arms(done: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Array]]:
    """Return marks ([seeds, questions]) and losses ([seeds, texts, 2]) by arm, float64; merged: `arm @ 1`."""
    units = sorted(done.values(), key=lambda unit: (unit["arm"] != "base", unit["arm"], unit["seed"]))
    marks: dict[str, list[Any]] = {}
    losses: dict[str, list[Any]] = {}
    for unit in units:
        said = {unit["arm"]: unit, **{f"{unit['arm']} @ {at}": own for at, own in unit["merged"].items()}}
        for arm, own in said.items():
            marks.setdefault(arm, []).append(own["marks"])
            losses.setdefault(arm, []).append(own["losses"])
    return {
        "marks": {arm: np.array(own, np.float64) for arm, own in marks.items()},
        "losses": {arm: np.array(own, np.float64) for arm, own in losses.items()},
    }


def _places(asked: Asked) -> dict[str, tuple[slice, bool]]:
    """Return where the questions of each target stand among all, and whether they are general."""
    found, begin = {}, 0
    for general, listed in ((False, asked.targets), (True, asked.general)):
        for own in listed:
            found[own.name] = slice(begin, begin + len(own.probes)), general
            begin += len(own.probes)
    return found


def _line(marks: Array, confidence: float, seed: int) -> dict[str, Any]:
    own = shown(interval(marks, confidence, seed))
    return {**own, "of_seeds": [round(float(mean), 6) for mean in marks.mean(axis=1)], "n": marks.shape[1]}


def _gains(name: str, marks: Mapping[str, Array], confidence: float, seed: int) -> list[dict[str, Any]]:
    """Return what each arm gains over the base, and the pairs over the raw texts."""
    pairs = [(arm, "base") for arm in marks if arm != "base"]
    if {"raw", "augmented"} <= set(marks):
        pairs.insert(0, ("augmented", "raw"))
    found = []
    for one, other in pairs:
        differs = contrast(marks[one] - marks[other], confidence, seed)
        verdict = "holds" if differs.low > 0 else "fails" if differs.high < 0 else "undecided"
        claim = f"{one} beats {other} on {name}"
        found.append({"claim": claim, "verdict": verdict, "over_all": shown(differs)})
    return found


def _kept(name: str, marks: Mapping[str, Array], config: PretrainConfig) -> list[dict[str, Any]]:
    """Return whether each arm keeps what the base knows of general questions, within epsilon."""
    found = []
    for arm in (arm for arm in marks if arm != "base"):
        differs = contrast(marks[arm] - marks["base"], config.confidence, config.train.seed)
        lost, kept = differs.high < -config.epsilon, differs.least >= -config.epsilon
        verdict = "holds" if kept else "fails" if lost else "undecided"
        claim = f"{arm} keeps what the base knows: {name}"
        found.append({"claim": claim, "verdict": verdict, "over_all": shown(differs)})
    return found


def _perplexity(losses: Mapping[str, Array], config: PretrainConfig) -> dict[str, Any]:
    """Return each arm's perplexity on the general texts, and how many nats a token it rose by.

    The interval of the rise is over texts and seeds, each text weighing as its tokens.
    """
    found: dict[str, Any] = {}
    base = losses["base"][0]
    tokens = base[:, 1]
    if not tokens.sum():
        return {}
    for arm, own in losses.items():
        mean = own[:, :, 0].sum(axis=1) / own[:, :, 1].sum(axis=1)
        rise = (own[:, :, 0] - base[None, :, 0]) / tokens.mean()
        found[arm] = {
            "perplexity": round(exp(float(mean.mean())), 4),
            "nats_a_token": round(float(mean.mean()), 6),
            "rise": shown(_interval(rise, config)),
            "of_seeds": [round(exp(float(one)), 4) for one in mean],
        }
    return found


def _interval(values: Array, config: PretrainConfig) -> Interval:
    return interval(values, config.confidence, config.train.seed)
