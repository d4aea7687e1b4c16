"""Every example in the documentation runs, every link resolves, and the tables say what the code says.

`python tests/test_docs.py` writes the generated tables anew.
"""

import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path

import click
import pytest

from taskmill import cli, registry
from taskmill.backends import GENERATORS, ModelConfig
from taskmill.budget import BudgetConfig
from taskmill.config import options
from taskmill.ingest import READERS, IngestConfig
from taskmill.recipes import SynthConfig, synth
from taskmill.recipes.cast import CastConfig
from taskmill.recipes.corpus import CorpusConfig
from taskmill.recipes.evaluate import EvaluateConfig
from taskmill.recipes.examine import ExamineConfig
from taskmill.recipes.pretrain import PretrainConfig
from taskmill.recipes.prove import ProveConfig
from taskmill.recipes.remix import RemixConfig
from taskmill.recipes.synth import FREE
from taskmill.record import Reason
from taskmill.render import FORMATS
from taskmill.tasks import TASKS, get, names
from taskmill.templates import words
from taskmill.train import TrainConfig

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "CONTRIBUTING.md"]
OURS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]

# What the whole documentation holds at least; fewer means that a block is no longer recognised.
LEAST_PAGES = 12
LEAST_PYTHON = 23
LEAST_COMMANDS = 48

FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1 *$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([\w./-]+)"')
GENERATED = re.compile(r"(<!-- generated: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
LANGUAGES = {"python", "bash", "console", "text", "yaml", "json", "toml"}
SHELL = {"taskmill", "pip", "make", "git", "cat", "export"}

PASSAGES = {
    "generators.txt": "The yield statement turns a function into a generator. Each call of next() runs the "
    "generator to its next yield. A generator that returns raises StopIteration.",
    "tuples.md": "A tuple is an immutable sequence of values. It is often used for small groups of values "
    "that belong together. Tuples can be keys of a dictionary.",
    "memory.txt": "The garbage collector frees objects that nothing refers to. Reference counts are kept for "
    "each object. Cycles are found by a second pass.",
    "imports.md": "Import statements load a module once. Later imports find it in the table of loaded "
    "modules. A failed import leaves no entry behind.",
}


# blocks


def blocks(text):
    """Yield (language, title, body) of each fenced block."""
    for _, head, body in FENCE.findall(text):
        title = TITLE.search(head)
        yield head.split(" ")[0].strip(), title[1] if title else "", body


def commands(body):
    """Yield (words, expected exit code) of each `taskmill` line; a backslash continues a line."""
    for line in body.replace("\\\n", " ").splitlines():
        if line.startswith("taskmill "):
            code = re.search(r"# exits (\d+)$", line)
            yield shlex.split(line, comments=True)[1:], int(code[1]) if code else 0


def offline(argv):
    """Return the command with the echo model in place of the default one."""
    if "--verify" in argv and "--verify-model" not in argv:
        argv = [*argv, "--verify-model", "echo:"]
    if argv[0] == "verify":
        at = argv.index("--model")
        return [*argv[: at + 1], "echo:", *argv[at + 2 :]]
    if argv[0] in ("synth", "demo", "evaluate") and not any(w.startswith("--model") for w in argv):
        return [*argv, "--model", "echo:"]
    if argv[0] == "run" and not any(w.startswith("model.ref=") for w in argv):
        return [*argv, "model.ref='echo:'"]
    return argv


def install(pyproject, site):
    """Make the entry points of a plug-in's pyproject.toml known, as `pip install` would."""
    project = tomllib.loads(pyproject)["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a small `docs/`, and everything a page registers taken back at the end."""
    (tmp_path / "docs").mkdir()
    for name, text in PASSAGES.items():
        (tmp_path / "docs" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(variable, raising=False)
    registries = [dict(r._entries) for r in (TASKS, GENERATORS, READERS)]
    loaded, extra, modules = set(registry._loaded), dict(words._extra), set(sys.modules)
    yield tmp_path
    for kind, entries in zip((TASKS, GENERATORS, READERS), registries, strict=True):
        for name in set(kind._entries) - set(entries):
            kind.unregister(name)
    registry._loaded.intersection_update(loaded)
    words._extra.clear()
    words._extra.update(extra)
    words._environment.cache_clear()
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def dataset_cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason='needs pip install "taskmill[hf]"')
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run_block(page, language, title, body, namespace):
    """Run or write one block; return how many examples it held."""
    if title:
        if title == "pyproject.toml":
            install(body, Path.cwd())
        path = Path(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        return 0
    if language == "python":
        exec(compile(body, str(page), "exec"), namespace)
        return 1
    if language not in ("bash", "console"):
        return 0
    ran = 0
    for argv, expected in commands(body):
        with pytest.raises(SystemExit) as ended:
            cli.main(offline(argv))
        assert ended.value.code == expected, f"{page.name}: taskmill {shlex.join(argv)}"
        ran += 1
    return ran


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_example_runs(page, place, dataset_cache, capsys):
    text = page.read_text("utf-8")
    namespace = {"__name__": "page"}
    ran = sum(run_block(page, *block, namespace) for block in blocks(text))
    untitled = [b for b in blocks(text) if not b[1]]
    python = sum(language == "python" for language, _, _ in untitled)
    shell = [body for language, _, body in untitled if language in ("bash", "console")]
    assert ran == python + sum(len(re.findall(r"^taskmill ", body, re.MULTILINE)) for body in shell)


def test_no_block_is_skipped_silently():
    python = ran = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        found = list(blocks(text))
        fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
        assert len(fences) == 2 * len(found), f"{page.name}: a fence is indented, unclosed or made of tildes"
        for language, title, body in found:
            assert language in LANGUAGES, f"{page.name}: {language!r}"
            python += language == "python" and not title
            if language in ("bash", "console"):
                ran += len(list(commands(body)))
                for line in body.replace("\\\n", " ").splitlines():
                    if line.strip() and not line.startswith("#"):
                        assert line.split()[0] in SHELL, f"{page.name}: {line}"
    assert len(PAGES) >= LEAST_PAGES
    assert python >= LEAST_PYTHON
    assert ran >= LEAST_COMMANDS


# links


def anchors(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def test_relative_links_resolve():
    looked_at, wrong = 0, []
    for page in OURS:
        for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
            if "://" in target:
                continue
            looked_at += 1
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists():
                wrong.append(f"{page.name}: {target}")
            elif anchor and anchor not in anchors(file.read_text("utf-8")):
                wrong.append(f"{page.name}: no heading for {target}")
    assert looked_at >= 40
    assert wrong == []


def test_the_index_links_every_page():
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    missing = [p.name for p in DOCS if p.name != "index.md" and f"({p.name}" not in text]
    assert missing == []


def test_no_machine_path_stands_in_the_documentation():
    for page in OURS:
        assert not re.search(r"/(home|root|work|tmp|Users)/", page.read_text("utf-8")), page.name


# tables made from the code


def cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell(c) for c in line)} |\n" for line in lines)


def first_sentence(docstring):
    text = inspect.cleandoc(docstring or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.) ", text)[0]


def flag_table(command, which):
    """Return the flags of a command: what is written, the configuration key, the default, the meaning."""
    own = {"corpus": CorpusConfig, "remix": RemixConfig, "synth": SynthConfig, "evaluate": EvaluateConfig}
    own |= {
        "prove": ProveConfig,
        "cast": CastConfig,
        "examine": ExamineConfig,
        "train corpus": PretrainConfig,
    }
    config = own.get(which, TrainConfig)
    keys = {o.path.replace(".", "__"): o.path for o in options(config)}
    rows = []
    for p in command.params:
        if not isinstance(p, click.Option):
            continue
        choices = isinstance(p.type, click.Choice)
        value = (
            "" if p.is_flag else ", ".join(p.type.choices) if choices else p.metavar or p.type.name.upper()
        )
        text, _, default = (p.help or "").partition("  [default: ")
        default = default.rstrip("]") or (p.default if p.show_default and p.default else "")
        written = ", ".join(f"`{o}`" for o in sorted(p.opts, key=len))
        key = f"`{keys[p.name]}`" if p.name in keys else ""
        rows.append((written, value, key, f"`{default}`" if default else "", text))
    return table(("flag", "value", "key", "default", "meaning"), rows)


def option_table(cls, prefix):
    rows = [
        (f"`--{o.flag}`", f"`{o.path}`", f"`{o.default}`" if o.default not in ("", False) else "", o.help)
        for o in options(cls, prefix)
    ]
    return table(("flag", "key", "default", "meaning"), rows)


def reason_table():
    """Return the reason codes with the stage and the meaning that record.py gives them."""
    rows, stage = [], ""
    for line in inspect.getsource(Reason).splitlines():
        group = re.fullmatch(r"    # (.+)", line)
        stage = group[1].partition(":")[0] if group else stage
        code = re.fullmatch(r'    [A-Z_]+ = "(\w+)"  # (.+)', line)
        if code:
            rows.append((f"`{code[1]}`", stage, code[2]))
    assert len(rows) == len(Reason)
    return table(("code", "stage", "meaning"), rows)


def task_table():
    rows = [(f"`{n}`", get(n).title, first_sentence(type(get(n)).__doc__), get(n).metric) for n in names()]
    return table(("name", "title", "what an example is", "graded by"), rows)


def check_table():
    rows = [(f"`{n}`", first_sentence(get(n).check.__doc__)) for n in names()]
    return table(("task type", "an example is kept if"), rows)


def make(name):
    kind, _, which = name.partition(" ")
    if kind == "flags":
        group, _, inner = which.partition(" ")
        command = cli.cli.commands[group]
        return flag_table(command.commands[inner] if inner else command, which)
    made = {
        "reasons": reason_table,
        "tasks": task_table,
        "checks": check_table,
        "ingest": lambda: option_table(IngestConfig, "ingest."),
        "model": lambda: option_table(ModelConfig, "model."),
        "budget": lambda: option_table(BudgetConfig, "budget."),
    }
    return made[name]()


def refreshed(text):
    return GENERATED.sub(lambda m: f"{m[1]}\n{make(m[2])}\n{m[3]}", text)


def all_commands():
    for name, command in cli.cli.commands.items():
        inner = getattr(command, "commands", None)
        yield from (f"{name} {n}" for n in inner) if inner else (name,)


def test_generated_tables_are_up_to_date():
    found = []
    for page in OURS:
        text = page.read_text("utf-8")
        found += [name for _, name, _ in GENERATED.findall(text)]
        assert refreshed(text) == text, f"{page.name}: run python tests/test_docs.py"
    assert sorted(found) == sorted(
        ["reasons", "tasks", "checks", "ingest", "model", "budget", *(f"flags {n}" for n in all_commands())]
    )


# what is written by hand and must name everything


def page_text(name):
    return (ROOT / "docs" / name).read_text("utf-8")


def test_the_architecture_page_has_the_order_of_the_layers():
    source = (ROOT / "tests" / "test_layers.py").read_text("utf-8")
    order = re.findall(r'^    "(\w+)",$', source.partition("ORDER = [")[2].partition("]")[0], re.MULTILINE)
    assert len(order) > 20
    assert re.findall(r"^\| \d+ \| `(\w+)` \|", page_text("architecture.md"), re.MULTILINE) == order


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("curate.md", [str(r) for r in Reason]),
        ("ingest.md", READERS._entries),
        ("backends.md", ["echo:", *(f"{n}:NAME" for n in GENERATORS._entries if n != "echo")]),
        ("export.md", FORMATS),
        ("runs.md", [f"{k}*" if k.endswith(".") else k for k in FREE]),
        ("cli.md", [*cli.cli.commands, *cli.ALIASES]),
    ],
)
def test_a_page_names_all_there_is(page, wanted):
    text = page_text(page)
    assert len(wanted) > 3
    assert [name for name in wanted if f"`{name}`" not in text] == []


def test_the_manifest_is_documented(place):
    manifest = synth(SynthConfig(sources=("docs",), model=ModelConfig(ref="echo:")), "run")
    missing = [key for key in manifest if f"`{key}`" not in page_text("runs.md")]
    assert missing == []
    for path in (place / "run").iterdir():
        assert path.name in page_text("runs.md"), path.name


def test_environment_variables_are_documented():
    used = set()
    for path in (ROOT / "src").rglob("*.py"):
        used |= set(re.findall(r'os\.environ(?:\.\w+)?[(\[]"([A-Z_]+)"', path.read_text("utf-8")))
    assert len(used) > 5
    assert [name for name in sorted(used) if f"`{name}`" not in page_text("backends.md")] == []


if __name__ == "__main__":
    for page in OURS:
        old = page.read_text("utf-8")
        if refreshed(old) != old:
            page.write_text(refreshed(old), "utf-8")
            print(f"{page.relative_to(ROOT)} refreshed")
