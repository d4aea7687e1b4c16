"""Lines per folder of the package, and the longest files and functions: orientation for a review."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main():
    folders, files, functions = Counter(), Counter(), Counter()
    for base in ("src/taskmill", "tests", "benchmarks"):
        for path in sorted((ROOT / base).rglob("*.py")):
            text = path.read_text("utf-8")
            lines = text.count("\n")
            inner = path.relative_to(ROOT / base).parts
            folders[f"{base}/{inner[0]}" if len(inner) > 1 else base] += lines
            if base == "src/taskmill":
                files[str(path.relative_to(ROOT))] = lines
                for node in ast.walk(ast.parse(text)):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        functions[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1
    for name, lines in sorted(folders.items()):
        print(f"{lines:6} {name}")
    print("longest files:    ", ", ".join(f"{n} {lines}" for n, lines in files.most_common(3)))
    print("longest functions:", ", ".join(f"{n} {lines}" for n, lines in functions.most_common(3)))


main()
