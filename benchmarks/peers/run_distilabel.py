"""distilabel: LoadDataFromDicts → TextGeneration on OpenAILLM, input batches of 50. See arm.py."""

from arm import MODEL, main, read, rows
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def run(prompts, out, url, concurrency):
    del concurrency  # a batch of 50 goes out at once
    with Pipeline(name="benchmark", cache_dir=str(out / "cache")) as pipeline:
        data = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in read(prompts)], batch_size=50)
        llm = OpenAILLM(
            model=MODEL,
            base_url=url,
            api_key="none",
            generation_kwargs={"temperature": 0.5, "max_new_tokens": 256},
        )
        data >> TextGeneration(llm=llm, input_batch_size=50)
    made = pipeline.run(use_cache=False)
    made["default"]["train"].to_json(str(out / "answers.jsonl"))


def answers(out):
    return ((row["instruction"], row["generation"]) for row in rows(out / "answers.jsonl"))


if __name__ == "__main__":
    main(run, answers)
