"""The bare loop: aiohttp, one task per call in flight, nothing on disk before the end. See arm.py."""

import asyncio
import os

import aiohttp
import orjson
from arm import MODEL, main, rows

HEADERS = {"Content-Type": "application/json"}


def run(prompts, out, url, concurrency):
    asked = [orjson.loads(line)["prompt"] for line in prompts.read_bytes().splitlines()]
    got = [""] * len(asked)
    todo = iter(range(len(asked)))

    async def worker(session):
        for i in todo:
            messages = [{"role": "user", "content": asked[i]}]
            body = {"model": MODEL, "messages": messages, "max_tokens": 256, "temperature": 0.5}
            async with session.post(url + "/chat/completions", data=orjson.dumps(body), headers=HEADERS) as r:
                got[i] = orjson.loads(await r.read())["choices"][0]["message"]["content"]

    async def everything():
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(worker(session) for _ in range(concurrency)))

    asyncio.run(everything())
    with (out / "answers.jsonl").open("wb") as file:
        for prompt, answer in zip(asked, got, strict=True):
            row = {"prompt": prompt, "answer": answer}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())


def answers(out):
    return ((row["prompt"], row["answer"]) for row in rows(out / "answers.jsonl"))


if __name__ == "__main__":
    main(run, answers)
