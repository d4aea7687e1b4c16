"""taskmill's calls: each answer into the ledger as it comes, fsynced; then the results. See arm.py."""

import os

import orjson
from arm import MODEL, main, rows

from taskmill.backends.openai import OpenAI
from taskmill.budget import Budget
from taskmill.caller import Caller
from taskmill.calls import Sampling, request
from taskmill.ledger import Ledger


def run(prompts, out, url, concurrency):
    backend = OpenAI(MODEL, base_url=url, concurrency=concurrency)
    sampling = Sampling()
    lines = prompts.read_bytes().splitlines()
    messages = ((("user", orjson.loads(line)["prompt"]),) for line in lines)
    asked = (request(backend.model, sampling, messages=m) for m in messages)
    with Ledger(out / "ledger", "benchmark") as ledger, (out / "answers.jsonl").open("wb") as file:
        for one, completion in Caller(backend, ledger, Budget()).answers(asked):
            row = {"prompt": one.messages[0][1], "answer": completion.text}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())


def answers(out):
    return ((row["prompt"], row["answer"]) for row in rows(out / "answers.jsonl"))


if __name__ == "__main__":
    main(run, answers)
