"""synthetic-data-kit `create`, its `vllm` provider: one paragraph a chunk, one call a chunk. See arm.py.

The prompts are the paragraphs of one text; it makes one call more, for the summary.
"""

import json

from arm import MODEL, main, read
from synthetic_data_kit.core.create import process_file


def run(prompts, out, url, concurrency):
    del concurrency  # its calls to this provider are one after another
    asked = read(prompts)
    (out / "text.txt").write_text("\n\n".join(asked))
    process_file(
        str(out / "text.txt"),
        str(out),
        api_base=url,
        model=MODEL,
        provider="vllm",
        num_pairs=len(asked),
        chunk_size=len(asked[0]),
        chunk_overlap=0,
    )


def answers(out):
    for pair in json.loads((out / "text_qa_pairs.json").read_text())["qa_pairs"]:
        yield "", pair["answer"]


if __name__ == "__main__":
    main(run, answers)
