"""Evaluation benchmarks: each is rows, a prompt, an extractor, a metric and an average under one name."""

from taskmill.registry import Registry
from taskmill.suites.base import Item, Shot, Suite
from taskmill.suites.prompts import Prompt, prompt

__all__ = ["SUITES", "Item", "Prompt", "Shot", "Suite", "get", "prompt"]

_AT = "taskmill.suites."

SUITES: Registry[Suite] = Registry(
    "suite",
    {
        "bbh": f"{_AT}bbh:BBH",
        "bbh-cot": f"{_AT}bbh:BBH_COT",
        "mmlu": f"{_AT}mmlu:MMLU",
        "mmlu-cot": f"{_AT}mmlu:MMLU_COT",
        "mmlu-hendrycks": f"{_AT}mmlu:MMLU_HENDRYCKS",
        "mmlu-rank": f"{_AT}mmlu:MMLU_RANK",
        "mmlu-cloze": f"{_AT}mmlu:MMLU_CLOZE",
        "gsm8k": f"{_AT}arithmetic:GSM8K",
        "mgsm": f"{_AT}arithmetic:MGSM",
        "mgsm-native-cot": f"{_AT}arithmetic:MGSM_NATIVE_COT",
        "mgsm-en-cot": f"{_AT}arithmetic:MGSM_EN_COT",
        "squad": f"{_AT}reading:SQUAD",
        "xquad": f"{_AT}reading:XQUAD",
        "tydiqa": f"{_AT}reading:TYDIQA",
        "superni": f"{_AT}superni:SUPERNI",
        "nli": f"{_AT}labelled:NLI",
        "healthver": f"{_AT}labelled:HEALTHVER",
        "pubmedqa": f"{_AT}labelled:PUBMEDQA",
        "strategyqa": f"{_AT}labelled:STRATEGYQA",
        "choice": f"{_AT}labelled:CHOICE",
    },
)


def get(name: str) -> Suite:
    """Return a suite by its name; raises UnknownName with the nearest one and the full list."""
    return SUITES.get(name)
