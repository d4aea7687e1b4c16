"""datatrove's InferenceRunner against an endpoint, checkpoints (chunks of 500) or none. See arm.py."""

import json

from arm import MODEL, main, read, rows
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter


async def ask(document, generate):
    return await generate({"messages": [{"role": "user", "content": document.text}], "max_tokens": 256})


def run(prompts, out, url, concurrency, checkpoints=""):
    documents = [Document(text=prompt, id=str(i)) for i, prompt in enumerate(read(prompts))]
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path=MODEL,
        endpoint_url=url.removesuffix("/v1"),
        max_concurrent_generations=concurrency,
        default_generation_params={"temperature": 0.5},
    )
    name = "${rank}_${chunk_index}.jsonl" if checkpoints else "${rank}.jsonl"
    step = InferenceRunner(
        rollout_fn=ask,
        config=config,
        output_writer=JsonlWriter(str(out / "results"), output_filename=name, compression=None),
        checkpoints_local_dir=str(out / "checkpoints") if checkpoints else None,
        records_per_chunk=500,
    )
    LocalPipelineExecutor(pipeline=[documents, step], logging_dir=str(out / "logs"), tasks=1).run()


def answers(out):
    for path in sorted((out / "results").glob("*.jsonl")):
        for row in rows(path):
            found = row["metadata"]["rollout_results"][0]
            found = json.loads(found) if isinstance(found, str) else found
            yield row["text"], found["text"]


if __name__ == "__main__":
    main(run, answers)
