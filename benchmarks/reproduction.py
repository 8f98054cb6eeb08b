"""Our figures on published data beside the published ones: quality, seeds, cost, and whether bands hold.

    SIDREC_DATA=<folder> python benchmarks/reproduction.py [--rows NAME …] [--seeds 0 …] [--run FOLDER]

Each row is a recipe of the package on one dataset of `<folder>/letter`, as `sidrec prepare --reader letter` and
`sidrec run RECIPE` make it: leave-one-out, whole catalogue, rules of the recipe, checkpoint chosen on validation, then
scored once on test. Training seconds are those of one process with as many threads as `--threads` says. Finished
stages are not run again, and rows that a call does not name keep their results of an earlier one.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness import RESULTS, Benchmark, Row, spread
from sidrec.artifact import open_artifact
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.stages.expected import verdicts
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.run import run_recipe

METRICS = ("hit@5", "hit@10", "ndcg@5", "ndcg@10")
PAGE = Path(__file__).parents[1] / "docs" / "assets" / "reproduction.md"


@dataclass(frozen=True)
class Published:
    """A row of somebody's table: hit@5, hit@10, NDCG@5, NDCG@10 on the test part."""

    name: str
    dataset: str
    values: tuple[float, float, float, float]


PUBLISHED = (
    Published(
        "SASRec with cross-entropy, RecBole (issue 20 of LETTER's repository)",
        "Beauty",
        (0.0543, 0.0821, 0.0315, 0.0405),
    ),
    Published("SASRec, table of LETTER", "Beauty", (0.0380, 0.0588, 0.0246, 0.0313)),
    Published("SASRec, table of LETTER", "Instruments", (0.0751, 0.0947, 0.0627, 0.0690)),
    Published("LETTER-TIGER, table of LETTER", "Instruments", (0.0909, 0.1122, 0.0763, 0.0831)),
)
ROWS = {
    f"{recipe} {dataset}": (recipe, dataset) for dataset in ("Beauty", "Instruments") for recipe in ("sasrec-amazon",)
}


def one(folder: RunFolder, recipe_name: str, dataset: str, seed: int) -> list[Row]:
    """Run a recipe; its figures."""
    recipe, name = load_recipe(recipe_name), f"{recipe_name}-seed-{seed}"
    scores = run_recipe(folder, recipe, RunSettings(seed=seed), name=name)[-1].result.artifact.summary
    trained = open_artifact(folder.recommender(name), "recommender").summary
    counts = open_artifact(folder.dataset, "dataset").summary
    bench = Benchmark("")
    for metric in METRICS:
        bench.row(f"{dataset}, test, seed {seed}", recipe_name, value=scores[metric], unit=metric)
    bench.row(f"{dataset}, test, seed {seed}", recipe_name, value=trained["train_seconds"], unit="s training")
    for verdict in verdicts(recipe.expected, recipe.evaluation, counts, scores):
        print(verdict)
    return bench.rows


def table(rows: list[Row]) -> str:
    """Ours and published figures, a block a dataset, in Markdown."""
    lines = [
        "| dataset | what | hit@5 | hit@10 | NDCG@5 | NDCG@10 | seeds | training |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for dataset in ("Beauty", "Instruments"):
        ours = [row for row in rows if row.case.startswith(dataset)]
        for variant in dict.fromkeys(row.variant for row in ours):
            cells = [
                spread([row.value for row in ours if (row.variant, row.unit) == (variant, unit)]) for unit in METRICS
            ]
            seconds = [row.value for row in ours if (row.variant, row.unit) == (variant, "s training")]
            cost = f"{statistics.mean(seconds) / 60:.0f} min"
            lines.append(f"| {dataset} | `{variant}` | {' | '.join(cells)} | {len(seconds)} | {cost} |")
        for row in PUBLISHED:
            if row.dataset == dataset:
                cells = [f"{value:.4f}" for value in row.values]
                lines.append(f"| {dataset} | {row.name} | {' | '.join(cells)} | | |")
    return "\n".join(lines) + "\n"


def earlier() -> list[Row]:
    """The rows of the last call."""
    path = RESULTS / "reproduction.json"
    if not path.is_file():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def main() -> None:
    """Run, print, write the results and the table of the documentation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--run", type=Path)
    arguments.add_argument("--threads", type=int, default=1)
    wanted: Any = arguments.parse_args()
    data = Path(os.environ.get("SIDREC_DATA", "")) / "letter"
    if "SIDREC_DATA" not in os.environ or not data.is_dir():
        print("SKIPPED: set SIDREC_DATA to the folder that holds letter/Beauty and letter/Instruments")
        return
    torch.set_num_threads(wanted.threads)
    benchmark = Benchmark("reproduction")
    with tempfile.TemporaryDirectory() as scratch:
        for name in wanted.rows:
            recipe, dataset = ROWS[name]
            folder = RunFolder((wanted.run or Path(scratch)) / dataset)
            prepare(folder, parse(PrepareConfig, {"reader": "letter"}), data / dataset, RunSettings())
            for seed in wanted.seeds:
                benchmark.rows += one(folder, recipe, dataset, seed)
    done = {(row.case, row.variant) for row in benchmark.rows}
    benchmark.rows += [row for row in earlier() if (row.case, row.variant) not in done]
    benchmark.rows.sort(key=lambda row: (row.case, row.variant))
    benchmark.save()
    PAGE.write_text(table(benchmark.rows), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
