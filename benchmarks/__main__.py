"""The benchmarks of taskmill, from the root of the repository:

    python -m benchmarks [NAME|all] [options of that benchmark]

Without a word, or with `all`, those of NAMES run with their defaults; the others want a word or data.
`--help` after a name lists its options.
"""

import importlib
import sys

NAMES = ("orchestration", "generation", "million", "decontaminate", "dsir", "templating", "mixing", "packing",
         "chains", "growth")  # fmt: skip
OF_CHOICE = ("dedup", "selection", "speed")  # each wants a word that says what, or results of the others
NEED_DATA = (
    "synthesizer",
    "own_synthesizer",
    "upstream",
    "verify",
    "language",
    "card",
    "evidence",
    "ltd",
    "grow",
    "continual",
    "evaluation",
    "suites",
)


def main() -> None:
    name, *options = sys.argv[1:] or ["all"]
    if name not in (*NAMES, *NEED_DATA, *OF_CHOICE, "all"):
        sys.exit(f"no benchmark {name!r}; known: {', '.join(NAMES)}, all")
    for one in NAMES if name == "all" else (name,):
        importlib.import_module(f"benchmarks.{one}").main(options)


main()
