"""taskmill's whole recipe, ingest → synthesize → curate, each prompt a document. See arm.py."""

import pyarrow.parquet as pq
from arm import MODEL, main

from taskmill.backends import ModelConfig
from taskmill.ingest import IngestConfig
from taskmill.recipes import SynthConfig, synth


def run(prompts, out, url, concurrency):
    model = ModelConfig(f"openai:{MODEL}", base_url=url, protocol="bonito", concurrency=concurrency)
    config = SynthConfig((str(prompts),), ("qg",), ingest=IngestConfig(text_column="prompt"), model=model)
    synth(config, out / "run")


def answers(out):
    for part in sorted((out / "run" / "3-curate" / "kept").glob("*.parquet")):
        for row in pq.read_table(part, columns=["context", "response"]).to_pylist():
            yield row["context"], row["response"]


if __name__ == "__main__":
    main(run, answers)
