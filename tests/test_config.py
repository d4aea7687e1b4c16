"""One dataclass gives flags, YAML and checks; a typo is an error that names the nearest key."""

from dataclasses import dataclass, field

import pytest

from taskmill.budget import load_price
from taskmill.config import build, difference, load_yaml, merge, options, override, to_mapping
from taskmill.errors import ConfigError
from taskmill.recipes.synth import SynthConfig
from taskmill.synthesize.declaration import load_declarations


@dataclass(frozen=True)
class Inner:
    width: int = field(default=3, metadata={"help": "how wide"})
    mode: str = field(default="fast", metadata={"choices": ("fast", "slow")})


@dataclass(frozen=True)
class Outer:
    names: tuple[str, ...] = ("a",)
    share: float = 0.5
    on: bool = False
    seed: int = 0
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def test_partial_mappings_keep_the_other_defaults():
    built = build(Outer, {"inner": {"width": "7"}, "names": "x, y"})
    assert built == Outer(names=("x", "y"), inner=Inner(width=7))


def test_every_default_round_trips():
    assert build(Outer, to_mapping(Outer())) == Outer()
    assert build(SynthConfig, to_mapping(SynthConfig())) == SynthConfig()


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"nmaes": []}, "unknown key 'nmaes'. Did you mean 'names'"),
        ({"inner": {"widht": 1}}, "unknown key 'inner.widht'. Did you mean 'width'"),
        ({"inner": 3}, "inner is a section"),
        ({"inner": {"mode": "medium"}}, "'medium' is none of fast, slow"),
        ({"inner": {"width": "many"}}, "inner.width: expected a whole number"),
        ({"inner": {"width": 1.5}}, "expected a whole number"),
        ({"inner": {"width": -1}}, "0 or more"),
        ({"on": "perhaps"}, "expected true or false"),
        ({"share": None}, "expected a number"),
        ({"inner": {"mode": ["fast"]}}, "inner.mode: expected one value"),
        ({"inner": {"mode": None}}, "inner.mode: expected one value"),
        ({"labels": ["a"]}, "expected a mapping"),
        ({"labels": {"ynqa": [True, "maybe"]}}, "labels.ynqa: expected a text, got True; put it in quotes"),
    ],
)
def test_wrong_input_is_named(mapping, words):
    with pytest.raises(ConfigError) as raised:
        build(Outer, mapping)
    assert words in str(raised.value)


def test_mappings_merge_and_lists_replace():
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


def test_overrides_are_dotted_yaml():
    assert override(["a.b=3", "a.c=[x, y]", "d=true"]) == {"a": {"b": 3, "c": ["x", "y"]}, "d": True}
    with pytest.raises(ConfigError, match="write key=value"):
        override(["seed"])


def test_flags_are_unique_and_documented():
    found = options(SynthConfig)
    flags = [o.flag for o in found]
    assert len(flags) == len(set(flags))
    assert [o.path for o in found if not o.help] == []


def test_a_word_that_ends_in_a_colon_is_a_word():
    assert build(SynthConfig, override(["model.ref=echo:"])).model.ref == "echo:"


def test_difference_names_the_leaves():
    assert difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 → 3"]


def test_yaml_files_must_be_mappings(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_yaml(path)
    path.write_text("a: [\n")
    with pytest.raises(ConfigError, match=r"c\.yaml is not YAML"):
        load_yaml(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_yaml(tmp_path / "absent.yaml")


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("sources:\n  a: {path: x}\n  b: {path: y}\n  'a': {path: z}\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml, line 4: the key 'a' is in line 2 already; rename"):
        load_yaml(path)
    path.write_text("base: &base {a: 1, b: {<<: {c: 3}, c: 4}}\nmore: {<<: *base, a: 2}\n1: x\n'1': y\n")
    assert load_yaml(path)["more"] == {"a": 2, "b": {"c": 4}}


@pytest.mark.parametrize("value", ["inf", "nan", "1e999", float("inf"), 10**400])
def test_numbers_are_finite(value):
    @dataclass(frozen=True)
    class Timed:
        seconds: float = 1.0

    with pytest.raises(ConfigError, match="seconds: expected a number of 0 or more"):
        build(Timed, {"seconds": value})


def test_declarations_and_price_tables_lose_no_repeated_key(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("- name: mine\n  files: a.jsonl\n  passage: text\n  files: b.jsonl\n")
    with pytest.raises(ConfigError, match="line 4: the key 'files' is in line 2 already"):
        load_declarations(path)
    path.write_text("m: {prompt: 1, completion: 2}\nm: {prompt: 0, completion: 0}\n")
    with pytest.raises(ConfigError, match="line 2: the key 'm' is in line 1 already"):
        load_price(str(path), "m")
