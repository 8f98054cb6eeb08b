"""Variants of one recommender on real data: train and score each, pair them with a baseline, write the tables.

Data are collisiongenrec/Scientific (Amazon Industrial and Scientific, 8,317 users, 4,344 items), leave-one-out, whole
catalogue, seen items excluded. Every variant is a recipe with a few settings, chosen on validation by NDCG@10 and
scored on test. Both figures are in the table: settings are to be judged by validation, test says whether that holds.
Finished stages are not run again, so a killed benchmark goes on where it was, and several processes may
share a folder if each has its own seeds; the last call, over all seeds, only collects. Results and tables are written
by a call with all variants and at least the script's own seeds.
"""

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from harness import Benchmark, spread
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.evaluation.significance import Interval, paired_bootstrap
from sidrec.stages.evaluate import PER_USER, evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.train import train
from sidrec.stages.tune import tune
from sidrec.types import FloatArray

__all__ = ["Ablation", "Variant", "command"]

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
CASE = "Scientific, leave-one-out, test"


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
        recipe: its name.
        settings: laid over it.
        vectors: of the run that the recommender starts from.
        start: another row; it is tuned, instead of a training from the start.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    vectors: str | None = None
    start: str | None = None


@dataclass(frozen=True)
class Found:
    """One variant and seed: metric → values float64[U] of test users in their order, and what it cost.

    `validation` is the figure by which its state was chosen.
    """

    values: dict[str, FloatArray]
    validation: float
    seconds: float
    parameters: int

    def mean(self, metric: str) -> float:
        """Over users."""
        return float(self.values[metric].mean())


@dataclass(frozen=True)
class Ablation:
    """A table: the variants of a baseline.

    Attributes:
        name: of the table's file in `docs/assets`.
        base: the variant that the others are compared with.
        variants: by their names, the baseline among them.
        metrics: that are noted; differences in the table are of the first.
        tokenizer: of the run; None for recommenders of items.
    """

    name: str
    base: str
    variants: Mapping[str, Variant]
    metrics: Sequence[str]
    tokenizer: str | None = None

    def label(self, name: str, seed: int) -> str:
        """Name of a variant's recommender in the run."""
        return f"{re.sub('[, :]+', '-', name)}-seed-{seed}"

    def one(self, folder: RunFolder, name: str, seed: int) -> Found:
        """Train or tune, and score."""
        variant, run, label = self.variants[name], RunSettings(seed=seed), self.label(name, seed)
        recipe = load_recipe(variant.recipe, list(variant.settings))
        if variant.start is None:
            made = train(folder, recipe, run, name=label, tokenizer=self.tokenizer, embeddings=variant.vectors)
        else:
            made = tune(folder, recipe, run, start=self.label(variant.start, seed), name=label)
        scored = evaluate(folder.recommender(label), "test", recipe.evaluation, run).artifact
        table = pl.read_parquet(scored.path / PER_USER)
        values = {metric: table[metric].to_numpy() for metric in self.metrics}
        made_of = made.artifact.summary
        return Found(values, made_of["report"]["best_metric"], made_of["train_seconds"], made_of["parameters"])

    def collect(self, folder: RunFolder, names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Found]]:
        """All variants of these names by all seeds; each is printed as it comes."""
        found: dict[str, list[Found]] = {name: [] for name in names}
        for seed in seeds:
            for name in names:
                result = self.one(folder, name, seed)
                found[name].append(result)
                scores = {metric: round(result.mean(metric), 4) for metric in self.metrics}
                print(name, seed, scores, f"{result.seconds:.0f} s", flush=True)
        return found

    def difference(self, found: dict[str, list[Found]], name: str, metric: str) -> Interval:
        """Mean difference to the baseline with its interval over users, each with all seeds."""
        sides = [np.concatenate([seed.values[metric] for seed in found[side]]) for side in (name, self.base)]
        users = np.tile(np.arange(len(found[name][0].values[metric])), len(found[name]))
        return paired_bootstrap(*sides, seed=0, users=users)

    def table(self, found: dict[str, list[Found]]) -> str:
        """The table of the documentation, in Markdown."""
        heads = [shown(metric) for metric in self.metrics]
        lines = [
            f"| variant | validation NDCG@10 | {' | '.join(heads)} | {heads[0]} against `{self.base}`, 95 % | weights "
            "| training |",
            f"|---|---:|{'---:|' * len(self.metrics)}---|---:|---:|",
        ]
        for name, seeds in found.items():
            cells = [spread([seed.validation for seed in seeds])]
            cells += [spread([seed.mean(metric) for seed in seeds]) for metric in self.metrics]
            change = ""
            if name != self.base:
                gap = self.difference(found, name, self.metrics[0])
                base = statistics.mean(seed.mean(self.metrics[0]) for seed in found[self.base])
                mean, low, high = (f"{100 * part / base:+.1f}" for part in (gap.mean, gap.low, gap.high))
                change = f"{mean} % ({low} to {high} %)"
            cost = f"{statistics.mean(seed.seconds for seed in seeds):.0f} s"
            lines.append(f"| {name} | {' | '.join(cells)} | {change} | {seeds[0].parameters:,} | {cost} |")
        return "\n".join(lines) + "\n"

    def rows(self, benchmark: Benchmark, found: dict[str, list[Found]], seeds: Sequence[int]) -> None:
        """Add the rows of the result file."""
        for name, results in found.items():
            for number, (seed, result) in enumerate(zip(seeds, results, strict=True)):
                for metric in self.metrics:
                    value, base = result.mean(metric), found[self.base][number].mean(metric)
                    benchmark.row(f"{CASE}, seed {seed}", name, self.base, value, metric, value / base)
                benchmark.row(f"{CASE}, seed {seed}", name, value=result.validation, unit="ndcg@10 on validation users")
                benchmark.row(f"{CASE}, seed {seed}", name, value=result.seconds, unit="s training")
            if name == self.base:
                continue
            for metric in self.metrics:
                gap = self.difference(found, name, metric)
                case = f"{CASE}, seeds {' '.join(map(str, seeds))}, difference to {self.base}"
                for end, value in {"mean": gap.mean, "95 % from": gap.low, "95 % to": gap.high}.items():
                    benchmark.row(f"{case}, {end}", name, self.base, value, metric)


def shown(metric: str) -> str:
    """A metric as tables name it: MRR and NDCG in capitals."""
    return metric if metric.startswith("hit") else metric.upper()


def command(
    result: str,
    description: str | None,
    tables: Sequence[Ablation],
    prepare_run: Callable[[RunFolder], None],
    own_seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """The command line of a script: run its tables, print, write the results and the tables of the documentation.

    Args:
        result: name of the result file.
        description: of the script.
        tables: of one run folder.
        prepare_run: makes vectors and semantic IDs in a run that has the dataset.
        own_seeds: that the text beside the tables speaks of.
    """
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=list(own_seeds))
    known = [name for table in tables for name in table.variants]
    arguments.add_argument("--variants", nargs="+", choices=known, default=known, help="nothing is written without all")
    arguments.add_argument("--run", type=Path)
    arguments.add_argument("--threads", type=int, default=1)
    wanted: Any = arguments.parse_args()
    data = Path(os.environ.get("SIDREC_DATA", ""))
    if "SIDREC_DATA" not in os.environ or not (data / "collisiongenrec" / "Scientific").is_dir():
        print("SKIPPED: set SIDREC_DATA to the folder that holds collisiongenrec/Scientific")
        return
    torch.set_num_threads(wanted.threads)
    is_whole = set(wanted.variants) == set(known) and set(wanted.seeds) >= set(own_seeds)
    results: list[dict[str, list[Found]]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(wanted.run or Path(scratch))
        reader = {"kind": "letter", "index_file": "none"}
        source = data / "collisiongenrec" / "Scientific"
        prepare(folder, parse(PrepareConfig, {"reader": reader}), source, RunSettings())
        prepare_run(folder)
        for table in tables:
            asked = [name for name in table.variants if name in wanted.variants]
            names = list(dict.fromkeys([table.base, *asked])) if asked else []
            results.append(table.collect(folder, names, wanted.seeds))
    if not is_whole:
        return
    benchmark = Benchmark(result)
    for table, found in zip(tables, results, strict=True):
        table.rows(benchmark, found, wanted.seeds)
    benchmark.save()
    for table, found in zip(tables, results, strict=True):
        page = ASSETS / f"{table.name}.md"
        page.write_text(table.table(found), encoding="utf-8")
        print(page.read_text(encoding="utf-8"))
