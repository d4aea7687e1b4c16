"""R33: each public set that is here has the rows its authors published, read by our own loaders.

The counts are those of the publications; where a file holds another number, the table says why.
"""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from taskmill.recipes.evaluate.rows import load
from taskmill.recipes.phrasing import rows_of, stock_of
from taskmill.recipes.tables import read_table
from taskmill.suites import get
from taskmill.templates.sets import find

DECLARED = {  # file → rows: training sets, whose fields `templates/sets.yaml` declares
    "flan/cot_gsm8k_train": 7473, "flan/cot_strategyqa_train": 2061, "flan/cot_creak_train": 6915,
    "flan/cot_qasc_train": 1084, "flan/cot_ecqa_train": 7112, "flan/cot_sensemaking_train": 6070,
    "flan/cot_aqua_train": 2728, "flan/self_instruct_seed_tasks": 175,
    "corpora/dream_train": 6116, "corpora/dream_dev": 2040, "corpora/dream_test": 2041,
    "corpora/cosmosqa_valid": 2985, "corpora/gap_development": 2000, "corpora/gap_test": 2000,
    "corpora/gap_validation": 454, "corpora/cad_nli_train": 8330, "corpora/cad_nli_dev": 1000,
    "corpora/cad_nli_test": 2000, "corpora/cad_imdb_train": 3414, "corpora/cad_imdb_dev": 490,
    "corpora/cad_imdb_test": 976, "corpora/wic_tsv_train": 2828, "corpora/wic_tsv_dev": 389,
    "corpora/contrast_quoref": 700, "corpora/contrast_ropes": 974,
    "corpora/xquad_en": 1190, "corpora/xquad_other_languages": 11 * 1190,
    "corpora/agieval_sat_en": 206, "corpora/agieval_lsat_rc": 269, "corpora/agieval_lsat_lr": 510,
    "corpora/agieval_lsat_ar": 230, "corpora/agieval_logiqa_en": 651, "corpora/agieval_gaokao_english": 306,
    "benchmarks/gsm8k_train": 7473, "benchmarks/strategyqa_train": 2061,
}  # fmt: skip

SUITES = {  # suite → items, by the file they are read from
    ("bbh", "benchmarks/bbh"): 6511, ("mgsm", "benchmarks/mgsm"): 11 * 250,
    ("gsm8k", "benchmarks/gsm8k_test"): 1319, ("mmlu", "benchmarks/mmlu_redux"): 57 * 100,
    ("mmlu", "benchmarks/mmlu_stem"): 3018, ("strategyqa", "benchmarks/strategyqa_dev"): 229,
    ("xquad", "corpora/xquad_en"): 1190, ("xquad", "corpora/xquad_other_languages"): 11 * 1190,
    ("pubmedqa", "targets/pubmedqa"): 500,  # of 1,000 labelled rows, those of the published test split
}  # fmt: skip

SHOTS = {  # solved questions: (suite, file) → how many of how many tasks
    ("bbh", "benchmarks/bbh_cot_prompts"): (27 * 3, 27),
    ("mgsm", "benchmarks/mgsm_exemplars"): (11 * 8, 11),
    ("mmlu-cot", "benchmarks/mmlu_cot_prompts"): (282, 57),  # three subjects have four
}

TABLES = {  # sets that are tables of texts already, or lists of prompts
    "flan/t0_rendered": 55_185, "superni/tasks": 214, "benchmarks/user_oriented_instructions": 252,
    "benchmarks/mt_bench_questions": 80, "benchmarks/vicuna_bench_questions": 80,
}  # fmt: skip

SAMPLED = {
    "superni/instances": "the first 200 instances of each of the 214 tasks stand for their 609,438",
    "corpora/contrast_boolq": "the authors count 69 passages, the file has a row for each question on them",
}


def file_of(shared_data, name):
    path = shared_data / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{name} is not among the shared datasets")
    return str(path)


def stock(path):
    dataset = find("", path)
    assert dataset is not None, f"{path} is no declared set"
    return stock_of(rows_of(path, dataset), dataset), dataset


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_set_has_the_rows_of_its_publication(shared_data, name):
    found, dataset = stock(file_of(shared_data, name))
    assert len(found.ids) == len(set(found.ids)) == DECLARED[name]
    left_out = [reason for reason, _ in found.unfit.values()]
    # Few rows lack a field; pronouns that refer to neither name have no answer (`where`).
    assert dataset.where or len(left_out) <= DECLARED[name] / 50, Counter(map(str, left_out))
    assert {role for role in found.fields if role in dataset.has} == set(found.fields)


def test_the_flan_rationales_are_33443(shared_data):
    counts = [DECLARED[name] for name in DECLARED if name.startswith("flan/cot_")]
    assert (len(counts), sum(counts)) == (7, 33_443)


@pytest.mark.parametrize(("suite", "name"), SUITES)
def test_a_benchmark_has_the_items_of_its_publication(shared_data, suite, name):
    bench = load(get(suite), file_of(shared_data, name))
    assert bench.whole == len({item.id for item in bench.items}) == SUITES[suite, name]


@pytest.mark.parametrize(("suite", "name"), SHOTS)
def test_solved_questions_are_as_many_as_published(shared_data, suite, name):
    own = get(suite)
    rows = pq.read_table(file_of(shared_data, name)).to_pylist()
    shots = own.shots(name, [own.mend(row) if own.mend else row for row in rows], 0)
    assert (sum(map(len, shots.values())), len(shots)) == SHOTS[suite, name]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_rows_of_its_publication(shared_data, name):
    assert len(read_table([file_of(shared_data, name)])) == TABLES[name]


def test_rendered_t0_rows_are_of_283_template_files(shared_data):
    table = read_table([file_of(shared_data, "flan/t0_rendered")])
    counts = table["template_file"].value_counts().to_pylist()
    assert len(counts) == 283
    assert max(one["counts"] for one in counts) <= 200


def test_super_natural_instructions_are_a_sample_of_each_task(shared_data):
    path = file_of(shared_data, "superni/instances")
    found, _ = stock(path)
    tasks = Counter(pq.read_table(path)["task"].to_pylist())
    said = pq.read_table(file_of(shared_data, "superni/tasks")).to_pylist()
    assert len(found.ids) == sum(tasks.values()) == 40_846, SAMPLED["superni/instances"]
    assert len(tasks) == 214
    assert sum(row["num_instances"] for row in said) == 609_438
    assert {row["task"]: min(200, row["num_instances"]) for row in said} == tasks


def test_contrast_boolq_is_of_69_passages(shared_data):
    path = file_of(shared_data, "corpora/contrast_boolq")
    found, _ = stock(path)
    assert len(found.ids) == 404
    assert len(set(pq.read_table(path)["paragraph"].to_pylist())) <= 70, SAMPLED["corpora/contrast_boolq"]


def test_mmlu_redux_has_100_questions_of_each_subject(shared_data):
    bench = load(get("mmlu"), file_of(shared_data, "benchmarks/mmlu_redux"))
    assert Counter(Counter(item.task for item in bench.items).values()) == {100: 57}
