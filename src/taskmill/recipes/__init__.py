"""Journeys: short functions that read like the river. The only place that knows the order of stages."""

from taskmill.recipes.synth import SynthConfig, synth

__all__ = ["RECIPES", "SynthConfig", "synth"]

RECIPES = {"synth": (SynthConfig, synth)}
"""Name in a recipe file → (its configuration, its function)."""
