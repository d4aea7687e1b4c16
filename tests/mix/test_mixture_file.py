"""A mixture's file: what is read, what is refused, and the files of other tools."""

import json

import pytest

from taskmill.errors import ConfigError, UnknownName
from taskmill.mix.importers import imported
from taskmill.mix.source import Policy, leaves, read_mixture


def source(**keys):
    return {"sources": {"a": {"path": "x.jsonl", **keys}}}


def test_everything_below_inherits_caps_and_policies():
    mixture = read_mixture(
        {
            "cap": 30,
            "policy": "repeat: 2",
            "sources": {
                "a": "x.jsonl",
                "b": {
                    "cap": 5,
                    "sources": {"c": ["y.jsonl", "z.jsonl"], "d": {"path": "w", "policy": "stop"}},
                },
            },
        }
    )
    found = {leaf.name: (leaf.cap, leaf.policy, leaf.path) for leaf in leaves(mixture.root)}
    assert found == {
        "a": (30, Policy("repeat", 2), ("x.jsonl",)),
        "b/c": (5, Policy("repeat", 2), ("y.jsonl", "z.jsonl")),
        "b/d": (5, Policy("stop"), ("w",)),
    }


def test_listed_sources_are_called_after_their_files():
    mixture = read_mixture({"sources": ["data/one.jsonl", {"path": "data/two", "name": "second"}]})
    assert [leaf.name for leaf in leaves(mixture.root)] == ["one", "second"]


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("stop", Policy("stop")),
        ("repeat", Policy("repeat")),
        ("repeat: 3", Policy("repeat", 3)),
        ({"repeat": 3}, Policy("repeat", 3)),
        ("once", Policy("once")),
    ],
)
def test_policies(written, policy):
    assert read_mixture(source(policy=written)).root.sources[0].policy == policy


def test_repeat_is_a_key_of_its_own_too():
    assert read_mixture(source(repeat=4)).root.sources[0].policy == Policy("repeat", 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "sources: a mixture needs some"),
        ({"sources": {}}, "sources: a mixture needs some"),
        (source(weight=-1), r"a: weight: expected a number of 0 or more, got -1"),
        (source(weight="much"), "a: weight: expected a number, got 'much'"),
        (source(weight=float("nan")), "a: weight: expected a number"),
        (source(weight=True), "a: weight: expected a number"),
        (source(weight=0), "all weights are 0"),
        (source(cap=0), "a: cap: expected a whole number of 1 or more, got 0"),
        (source(cap=2.5), "a: cap: expected a whole number"),
        (source(temperature=0), "a: temperature: must be more than 0"),
        (source(policy="repeet"), "no policy 'repeet'. Did you mean 'repeat'"),
        (source(policy="stop: 3"), "stop takes no number"),
        (source(repeat=0), "expected a whole number of 1 or more, got 0"),
        (source(repeat=2, policy="stop"), "write one of `repeat` and `policy`"),
        (source(wieght=2), "a: unknown key 'wieght'. Did you mean 'weight'"),
        (source(sources={"b": "y"}), "a has a path and sources below it"),
        (source(count=0), "a: count: expected a whole number of 1 or more"),
        (source(count=5, weight=1), "a count is of a source with a path and without a weight"),
        (source(unimax=2, temperature=3), "unimax and temperature exclude each other"),
        ({"sources": {"a": {}}}, "a has neither a path nor sources"),
        ({"sources": {"a": 5}}, "a: expected a path or a mapping"),
        ({"sources": {"a": {"path": []}}}, "a: path: expected a path"),
        ({"sources": {"a/b": "x"}}, "holds no slash"),
        ({"sources": ["x.jsonl", "y/x.jsonl"]}, "two sources, or none, are called 'x'"),
        ({"sources": {"a": {"path": "x", "weight": 1}, "b": "y"}}, "a has a weight and b has none"),
        ({"weights": "bytes", **source()}, "weights: rows or tokens"),
        ({"until": "now", **source()}, "until: 'now' is none of"),
        ({"stratified": "yes", **source()}, "stratified: expected true or false"),
        ({"sources": {"a": {"weight": 0}}}, "weights are 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(given, said):
    with pytest.raises(ConfigError, match=said):
        read_mixture(given)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UnknownName, match=r"flan-2022-c.*Did you mean 'flan-2022-."):
        read_mixture({"preset": "flan-2022-c", **source()})


def test_a_preset_wants_a_path_for_each_of_its_sources():
    with pytest.raises(ConfigError, match="cot has neither a path nor sources"):
        read_mixture({"preset": "flan-2022-a", "sources": {"muffin": "x", "t0_sf": "y", "niv2": "z"}})
    sources = {"muffin": "x", "t0_sf": "y", "niv2": "z", "cot": {"weight": 0}}
    assert len(leaves(read_mixture({"preset": "flan-2022-a", "sources": sources}).root)) == 3


# other tools


def test_axolotl_concatenates(tmp_path):
    given = {
        "base_model": "x/y",
        "sequence_len": 4096,
        "datasets": [
            {"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"},
            {"path": "json", "data_files": ["a.jsonl", "b.jsonl"], "ds_type": "json"},
            {"path": "./local.jsonl", "type": "chat_template", "split": "train"},
            {"path": "./local.jsonl"},
        ],
    }
    mapping, tool, notes = imported(given, tmp_path)
    mixture = read_mixture(mapping)
    assert tool == "axolotl"
    assert [leaf.path for leaf in leaves(mixture.root)] == [
        ("hf:mhenrichsen/alpaca_2k_test",),
        ("a.jsonl", "b.jsonl"),
        ("./local.jsonl",),
        ("./local.jsonl",),
    ]
    assert {leaf.policy.name for leaf in leaves(mixture.root)} == {"once"}
    assert len(notes) == 2
    for wrong in ({"path": "a.jsonl", "shards": 10}, {"path": "a.jsonl", "split": "test"}, "a.jsonl", {}):
        with pytest.raises(ConfigError, match=r"datasets\[0\]"):
            imported({"datasets": [wrong]}, tmp_path)


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "data").mkdir()
    info = {
        "own": {"file_name": "own.jsonl", "formatting": "sharegpt"},
        "hub": {"hf_hub_url": "org/name"},
        "few": {"file_name": "own.jsonl", "num_samples": 10},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path


@pytest.mark.parametrize(
    ("strategy", "policy", "until"),
    [
        (None, "once", ""),
        ("interleave_under", "stop", "first-empty"),
        ("interleave_over", "repeat", "all-seen"),
    ],
)
def test_llama_factory_mixes_by_its_strategy(factory, strategy, policy, until):
    given = {"dataset": "own, hub", "mix_strategy": strategy, "max_samples": 1000, "template": "llama3"}
    if strategy:
        given["interleave_probs"] = "0.7, 0.3"
    mapping, tool, _ = imported(given, factory)
    mixture = read_mixture(mapping)
    assert (tool, mixture.until) == ("LLaMA-Factory", until)
    own, hub = leaves(mixture.root)
    assert (own.path, hub.path) == ((str(factory / "data" / "own.jsonl"),), ("hf:org/name",))
    assert (own.weight, hub.weight) == ((0.7, 0.3) if strategy else (None, None))
    assert (own.cap, own.policy.name) == (1000, policy)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": "owm"}, "'owm' stands in no data/dataset_info.json"),
        ({"dataset": "few"}, "num_samples takes a part"),
        ({"dataset": "own", "mix_strategy": "shuffle"}, "mix_strategy: 'shuffle'"),
        ({"dataset": "own", "interleave_probs": "1.0"}, "only with an interleaving"),
        ({"dataset": "own,hub", "mix_strategy": "interleave_over", "interleave_probs": "1"}, "one for each"),
    ],
)
def test_llama_factory_what_is_wrong(factory, given, said):
    with pytest.raises(ConfigError, match=said):
        imported(given, factory)


def test_open_instruct_gives_shares_or_numbers(tmp_path):
    given = {"dataset_mixer": {"allenai/tulu": 0.5, "a.jsonl": 1.0, "b.jsonl": 7708}}
    mixture = read_mixture(imported(given, tmp_path)[0])
    assert [(leaf.path[0], leaf.count) for leaf in leaves(mixture.root)] == [
        ("hf:allenai/tulu", 0.5),
        ("a.jsonl", 1.0),
        ("b.jsonl", 7708),
    ]
    listed = {"dataset_mixer_list": "a.jsonl 100 b.jsonl 0.25"}
    mixture = read_mixture(imported(listed, tmp_path)[0])
    assert [leaf.count for leaf in leaves(mixture.root)] == [100, 0.25]
    for wrong in ("a.jsonl", ["a.jsonl", "many"], {"a.jsonl": 0}):
        with pytest.raises(ConfigError, match="dataset_mixer"):
            imported({"dataset_mixer": wrong}, tmp_path)


def test_our_own_files_are_left_alone(tmp_path):
    given = {"sources": {"a": "x"}, "dataset": "y"}
    assert imported(given, tmp_path) == (given, "", [])
