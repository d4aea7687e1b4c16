"""Natural language inference: a statement is entailed, contradicted or left open by the passage."""

from __future__ import annotations

from taskmill.tasks.te import TextualEntailment

__all__ = ["NaturalLanguageInference"]


class NaturalLanguageInference(TextualEntailment):
    """Textual entailment with a third label for what the passage leaves open.

    The surfaces are those of P3's ANLI and CB wordings and of the datasets themselves.
    """

    name = "nli"
    title = "natural language inference"
    labels = ("Yes", "No", "Maybe")
    meanings = (
        ("yes", "true", "entailment", "entailed", "entails", "correct",
         "supported", "supports", "always", "guaranteed"),
        ("no", "false", "contradiction", "contradicted", "contradicts", "incorrect",
         "refuted", "refutes", "never", "impossible"),
        ("maybe", "inconclusive", "neutral", "unknown", "undetermined", "not enough info",
         "sometimes", "possible", "neither"),
    )  # fmt: skip
    surfaces = (
        ("Yes", "No", "Maybe"),
        ("True", "False", "Inconclusive"),
        ("Entailment", "Contradiction", "Neutral"),
        ("Correct", "Incorrect", "Inconclusive"),
        ("Always", "Never", "Sometimes"),
        ("Guaranteed", "Impossible", "Possible"),
    )
    kinds = ("follows", "contradicts", "leaves open")
    # The last two surfaces fit P3's wordings only; asks draw from the others.
    drawn_surfaces = 4
