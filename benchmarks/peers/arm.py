"""What every arm of the orchestration benchmark shares: its command line and how it shows its results.

    python run_X.py run PROMPTS OUT URL CONCURRENCY [key=value …]    the measured work
    python run_X.py answers OUT                                      its results, to be checked

PROMPTS holds one {"prompt": …} a line. `answers` prints one [prompt, answer] a line, read from what the
work left on disk; the prompt is empty where a tool does not keep it. Standard library only.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

MODEL = "fast-model"


def main(run: Callable[..., None], answers: Callable[[Path], Iterable[tuple[str, str]]]) -> None:
    if sys.argv[1] == "run":
        prompts, out, url, concurrency, *options = sys.argv[2:]
        run(Path(prompts), Path(out), url, int(concurrency), **dict(o.split("=") for o in options))
    else:
        for prompt, answer in answers(Path(sys.argv[2])):
            print(json.dumps([prompt, answer]))


def read(prompts: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]


def rows(path: Path) -> Iterable[dict]:
    return map(json.loads, path.read_text().splitlines())
