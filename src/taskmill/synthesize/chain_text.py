"""A chain of texts with their pairs → one text to train on, worded as in `templates/chains.yaml`.

A chain has one style: each part of it is drawn by a draw of its own from (seed, chain, what is drawn), so
that no two choices depend on each other. Whatever is drawn, every text, question and answer stands in the
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from taskmill.ids import draw
from taskmill.synthesize.pair_format import Pair, Shown, split_options, split_reasoning
from taskmill.tasks.mcqa import which
from taskmill.templates.chains import load, render

__all__ = ["Style", "chain_text", "draw_style"]

_ONE = (("classic", 95), ("dialogue", 5))
_MORE = (("classic", 80), ("dialogue", 5), ("numbered", 5), ("inline", 5), ("turns", 5))
"""Modes and their weights in percent, for chains whose text of fewest pairs has one, and two or more
(`read_compre_pt.py` of microsoft/LMOps, `get_patterns`)."""

TURNED = 5
"""Percent of the chains whose questions stand before their text (as above)."""

_LETTERED = 26  # options that letters can name; more are numbered


@dataclass(frozen=True, slots=True)
class Style:
    """The wordings of one chain, by number, and the draw that shuffles its options."""

    mode: str
    turned: bool
    frame: int
    pair: int
    option: int
    lead: int
    reasoning: int
    between: int
    seed: int
    chain: str

    @property
    def name(self) -> str:
        """Return the style in a few words, for the provenance of a row."""
        frame = "turned" if self.turned else "opening"
        return f"{self.mode}/{self.pair} {frame}/{self.frame}"


def draw_style(seed: int, chain: str, fewest: int) -> Style:
    """Return the style of a chain; `fewest`: the number of pairs of its text that has fewest."""

    def pick(kind: str) -> int:
        return draw(seed, chain, f"chain {kind}") % len(load()[kind])

    mode = _weighted(draw(seed, chain, "chain mode") % 100, _MORE if fewest > 1 else _ONE)
    turned = draw(seed, chain, "chain turned") % 100 < TURNED
    frame = pick("turned" if turned else "opening")
    pair, option, lead, reasoning = pick(mode), pick("options"), pick("lead"), pick("reasoning")
    return Style(mode, turned, frame, pair, option, lead, reasoning, pick("between"), seed, chain)


def _weighted(point: int, weights: Sequence[tuple[str, int]]) -> str:
    for name, weight in weights:
        if point < weight:
            return name
        point -= weight
    raise AssertionError("the weights sum to 100")


def chain_text(chain: Sequence[Shown], style: Style) -> str:
    """Return the texts of a chain with their pairs, each text framed with what is asked about it."""
    frame = "turned" if style.turned else "opening"
    bodies = [_body(shown.pairs, style, i) for i, shown in enumerate(chain)]
    framed = [
        render(frame, style.frame, text=shown.context, body=body)
        for shown, body in zip(chain, bodies, strict=True)
    ]
    return render("between", style.between).join(framed)


def _body(pairs: Sequence[Pair], style: Style, place: int) -> str:
    said = [_said(pair, style, f"{place} {i}") for i, pair in enumerate(pairs)]
    if style.mode == "numbered":
        slots = {}
        for part in ("question", "answer"):
            lines = [
                render("numbered", style.pair, part, number=i, question=q, answer=a)
                for i, (q, a) in enumerate(said, 1)
            ]
            slots[f"{part}s"] = "\n".join(lines)
        return render("numbered", style.pair, "body", **slots)
    gap = "\n" if style.mode == "inline" else "\n\n"
    return gap.join(render(style.mode, style.pair, question=q, answer=a) for q, a in said)


def _said(pair: Pair, style: Style, place: str) -> tuple[str, str]:
    """Return question and answer as they are written out, options and reasoning in our own words."""
    question, rationale, answer = split_reasoning(pair)
    question, options = split_options(question)
    if options:
        lead = render("lead", style.lead)
        listed, answer = _options(options, answer, style, place)
        question = "\n".join(filter(None, (question, lead, listed)))
    if rationale:
        ask = render("reasoning", style.reasoning, "ask")
        question = f"{question}\n{ask}" if ask else question
        answer = render("reasoning", style.reasoning, "say", rationale=rationale, answer=answer)
    return question, answer


def _options(options: tuple[str, ...], answer: str, style: Style, place: str) -> tuple[str, str]:
    """Return (the options listed in a drawn order, the answer): named as it is listed, in half of the chains.

    The draw of the order has the pair's place in it: in every question the right option may stand anywhere.
    """
    name = f"{style.chain} {place}"
    order = sorted(range(len(options)), key=lambda i: draw(style.seed, f"{name} {i}", "option order"))
    lettered = len(options) <= _LETTERED

    def listed(at: int, option: str) -> str:
        letter = ascii_uppercase[at] if lettered else str(at + 1)
        return render("options", style.option, option=option, letter=letter, number=at + 1)

    lines = [listed(at, options[i]) for at, i in enumerate(order)]
    gold = options.index(answer) if answer in options else which(answer, options)
    bullet = load()["options"][style.option]
    named = ("letter" in bullet or "number" in bullet) and draw(style.seed, style.chain, "answer named") % 2
    if gold is None or not named or answer != options[gold]:
        return "\n".join(lines), answer
    return "\n".join(lines), lines[order.index(gold)]
