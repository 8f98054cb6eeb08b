"""Tables of the documentation are those that scripts write, and variants of ablations are recipes that exist."""

import importlib
import json
import re
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.recipes import recipe_names
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def results(name: str) -> list[object]:
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["rows"]
    return [module("harness").Row(**row) for row in rows]


def test_the_table_of_packed_windows_is_that_of_its_results() -> None:
    packing = module("packing")
    assert packing.table(results("packing")) == packing.PAGE.read_text()


def test_packing_counts_all_tokens_and_targets() -> None:
    packing = module("packing")
    dataset = module("training").make_dataset(60)
    (apart, wide, learnt), (share, narrow, again) = (packing.epoch(dataset, 60, packed=packed) for packed in (0, 1))
    assert learnt == again == 60
    assert share < apart
    assert narrow < wide


@pytest.mark.parametrize("name", ["sasrec_ablation", "options_ablation"])
def test_variants_are_recipes_and_have_names_of_their_own(name: str) -> None:
    script = module(name)
    tables = getattr(script, "TABLES", None) or [script.SASREC]
    labels = [table.label(variant, 0) for table in tables for variant in table.variants]
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"[\w.-]+", label) for label in labels), "they name folders"
    for table in tables:
        assert table.base in table.variants
        for variant in table.variants.values():
            load_recipe(variant.recipe, list(variant.settings))
            assert variant.start is None or variant.start in table.variants


def test_a_table_pairs_users_and_judges_by_the_first_metric() -> None:
    ablation = module("ablation")
    table = ablation.Ablation("x", "base", {}, ("ndcg@10", "hit@10"))
    users = np.random.default_rng(0).random(50)

    def found(change: float) -> list[object]:
        return [
            ablation.Found({"ndcg@10": users + change + seed, "hit@10": users}, 0.5 + seed, 9.0, 1_000)
            for seed in (0, 1)
        ]

    both = {"base": found(0.0), "more": found(0.1)}
    gap = table.difference(both, "more", "ndcg@10")
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))
    head, _, base, more = table.table(both).splitlines()
    assert head.startswith("| variant | validation NDCG@10 | NDCG@10 | hit@10 | NDCG@10 against `base`, 95 % |")
    assert base.split(" | ")[1] == more.split(" | ")[1] == "1.0000 ± 0.7071"
    change = 100 * 0.1 / (users.mean() + 0.5)
    assert f"| {change:+.1f} % ({change:+.1f} to {change:+.1f} %) | 1,000 | 9 s |" in more


def test_the_bands_of_the_documentation_are_those_of_the_recipes() -> None:
    page = (DOCS / "reproduction.md").read_text()
    wanted = set()
    for name in recipe_names():
        for band in load_recipe(name).expected:
            (hit, ndcg) = (
                " to ".join(f"{end:.4f}" for end in band.metrics[metric]) for metric in ("hit@10", "ndcg@10")
            )
            wanted.add(f"| `{name}` | {band.dataset.split()[1]} | {hit} | {ndcg} |")
    assert len(wanted) == 5
    rows = [line for line in page.splitlines() if line.startswith("| `") and " to 0." in line]
    assert {" | ".join(row.split(" | ")[:4]) + " |" for row in rows} == wanted


def test_the_gain_of_an_ensemble_pairs_users(tmp_path: Path) -> None:
    reproduction, folder = module("reproduction"), RunFolder(tmp_path)
    users = np.random.default_rng(0).random(60)
    for name, values in {"both": users + 0.25, "one": users}.items():
        folder.evaluation(name, "test").mkdir(parents=True)
        table = pl.DataFrame({"hit@10": values, "ndcg@10": users})
        table.write_parquet(folder.evaluation(name, "test") / reproduction.PER_USER)
    gap = reproduction.gain(folder, "both", "one", "hit@10")
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.25, 0.25, 0.25))
    assert reproduction.gain(folder, "both", "one", "ndcg@10").mean == 0


def test_how_far_a_row_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduction = module("reproduction")
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(reproduction, "embeddings_name", lambda *_: "collaborative")
    monkeypatch.setattr(reproduction.TrainRecord, "load", lambda path: SimpleNamespace(seconds=60.0))

    def checkpoint(scratch: str, step: int) -> None:
        (folder.scratch(scratch) / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        time.sleep(0.02)

    def said(name: str, recipe: str) -> str:
        return reproduction.where_it_stands(folder, name, load_recipe(recipe), RunSettings()).partition(", ")[2]

    assert said("one", "letter-tiger-published") == "one: no checkpoint yet"
    checkpoint("embed-collaborative", 7)
    checkpoint("one-0123456789abcdef-more", 5)
    assert said("one", "letter-tiger-published") == "one: no checkpoint yet", "neither other rows nor their vectors"
    assert said("two", "item-decoder-amazon") == "two, item vectors: 1.0 min so far; last checkpoint: step 7"
    checkpoint(f"one-{'a' * reproduction.SCRATCH_DIGITS}", 9)
    checkpoint(f"one-{'b' * reproduction.SCRATCH_DIGITS}", 3)
    assert said("one", "letter-tiger-published") == "one: 1.0 min so far; last checkpoint: step 3", "the newest"
    folder.embeddings("collaborative").mkdir(parents=True)
    assert said("two", "item-decoder-amazon") == "two: no checkpoint yet"
