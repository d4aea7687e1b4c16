"""bespokelabs-curator: one LLM over a dataset, backend `openai`, limits out of the way. See arm.py.

It needs OpenAI's cl100k_base file at start and would download it; the copy that its own dependency
litellm ships is used instead.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from arm import MODEL, main, read, rows
from bespokelabs import curator

_VOCABULARY = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
for _copy in Path(find_spec("litellm").submodule_search_locations[0]).rglob(_VOCABULARY):
    os.environ["TIKTOKEN_CACHE_DIR"] = str(_copy.parent)


class Asker(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"prompt": row["prompt"], "answer": response}


def run(prompts, out, url, concurrency):
    os.environ["CURATOR_CACHE_DIR"] = str(out / "cache")
    limits = {"max_requests_per_minute": 10_000_000, "max_tokens_per_minute": 10_000_000_000}
    asker = Asker(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": 0.5, "max_tokens": 256},
        backend_params={"base_url": url, "max_concurrent_requests": concurrency, **limits},
    )
    response = asker([{"prompt": prompt} for prompt in read(prompts)])
    response.dataset.to_json(str(out / "answers.jsonl"))


def answers(out):
    return ((row["prompt"], row["answer"]) for row in rows(out / "answers.jsonl"))


if __name__ == "__main__":
    main(run, answers)
