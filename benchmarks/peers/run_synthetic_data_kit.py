"""synthetic-data-kit `create`, its `vllm` provider: one paragraph a chunk, one call a chunk. See arm.py.

The prompts are the paragraphs of one text; it makes one call more, for the summary. The chunk size stands
in a configuration file because the argument of `process_file` does not reach its generator.
"""

import json
from pathlib import Path

import synthetic_data_kit
import yaml
from arm import MODEL, main, read
from synthetic_data_kit.core.create import process_file


def run(prompts, out, url, concurrency):
    del concurrency  # its calls to this provider are one after another
    asked = read(prompts)
    (out / "text.txt").write_text("\n\n".join(asked))
    config = yaml.safe_load((Path(synthetic_data_kit.__file__).parent / "config.yaml").read_text())
    config["generation"] |= {"chunk_size": len(asked[0]), "overlap": 0, "max_tokens": 256}
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    text, settings = str(out / "text.txt"), out / "config.yaml"
    process_file(text, str(out), settings, url, MODEL, num_pairs=len(asked), provider="vllm")


def answers(out):
    for pair in json.loads((out / "text_qa_pairs.json").read_text())["qa_pairs"]:
        yield "", pair["answer"]


if __name__ == "__main__":
    main(run, answers)
