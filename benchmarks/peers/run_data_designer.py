"""NeMo Data Designer: a seed file of prompts and one LLM text column, buffer 1,000. See arm.py."""

import data_designer.config as dd
from arm import MODEL, main
from data_designer.interface import DataDesigner


def run(prompts, out, url, concurrency):
    parameters = dd.ChatCompletionInferenceParams(
        temperature=0.5, max_tokens=256, max_parallel_requests=concurrency
    )
    model = dd.ModelConfig(alias="fast", model=MODEL, provider="local", inference_parameters=parameters)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource(path=str(prompts)))
    builder.add_column(dd.LLMTextColumnConfig(name="answer", prompt="{{ prompt }}", model_alias="fast"))
    provider = dd.ModelProvider(name="local", endpoint=url, api_key="none")
    designer = DataDesigner(artifact_path=out / "artifacts", model_providers=[provider])
    designer.set_run_config(dd.RunConfig(buffer_size=1000, otel_metrics_port=None))
    with prompts.open() as lines:
        count = sum(1 for _ in lines)
    designer.create(builder, num_records=count, dataset_name="benchmark")


def answers(out):
    import pandas as pd

    for path in sorted((out / "artifacts").rglob("parquet-files/*.parquet")):
        yield from pd.read_parquet(path)[["prompt", "answer"]].itertuples(index=False)


if __name__ == "__main__":
    main(run, answers)
