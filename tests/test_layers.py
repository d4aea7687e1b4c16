"""The architecture: a module may import only what stands above it in this list, lazy imports included."""

import ast
import subprocess
import sys
from pathlib import Path

import taskmill

ORDER = [
    "errors",
    "ids",
    "durable",
    "record",
    "registry",
    "calls",
    "config",
    "store",
    "frame",
    "kernels",
    "ledger",
    "budget",
    "caller",
    "render",
    "templates",
    "tasks",
    "backends",
    "suites",
    "ingest",
    "synthesize",
    "curate",
    "select",
    "mix",
    "train",
    "evaluate",
    "grow",
    "export",
    "report",
    "recipes",
    "bonito",
    "testing",
    "console",
    "progress",
    "cli",
    "__main__",
]
STAGES = {"ingest", "synthesize", "curate", "select", "mix", "train", "evaluate", "grow"}
ROOT = Path(taskmill.__file__).parent


def layer(module):
    return module.split(".")[1]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.level == 0
            and (node.module or "").startswith("taskmill")
        ):
            if node.module == "taskmill":
                yield from (f"taskmill.{a.name}" for a in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("taskmill."))


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def test_every_module_has_its_place():
    assert {name for name, _ in modules()} == set(ORDER)


def test_imports_point_upwards():
    wrong = []
    looked_at = 0
    for name, path in modules():
        for target in imports(path):
            if target in ("taskmill.__version__", "taskmill"):
                continue
            looked_at += 1
            if ORDER.index(layer(target)) > ORDER.index(name):
                wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    assert looked_at > 100
    assert wrong == []


def test_stages_never_import_each_other():
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for name, path in modules()
        if name in STAGES
        for target in imports(path)
        if target != "taskmill" and layer(target) in STAGES - {name}
    ]
    assert wrong == []


def test_heavy_packages_stay_inside_backends_and_train():
    heavy = {"torch", "vllm", "transformers", "openvino_genai", "aiohttp", "trl", "peft"}
    wrong = []
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if name not in ("backends", "train") and heavy & {n.split(".")[0] for n in names}:
                wrong.append(f"{path.relative_to(ROOT)}: {names}")
    assert wrong == []


def test_calling_a_model_needs_no_arrow():
    """The path of a paid call stays light: no dataframe or Arrow library is loaded for it."""
    code = (
        "import sys; import taskmill.caller, taskmill.backends.openai\n"
        "print(sorted({'pyarrow', 'daft'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
