"""Our figures on published data beside the published ones: quality, seeds, cost, and whether bands hold.

    SIDREC_DATA=<folder> python benchmarks/reproduction.py [--rows NAME …] [--seeds 0 …] [--run FOLDER]
        [--device cuda] [--minutes 9] [--set training.precision=bf16 …]

Each row is a recipe of the package on one dataset of `<folder>/letter`, as `sidrec prepare --reader letter` and
`sidrec run RECIPE` make it: leave-one-out, whole catalogue, rules of the recipe, checkpoint chosen on validation, then
scored once on test. Training seconds are those of one process with as many threads as `--threads` says, all pieces
together. Finished stages are not run again, and rows that a call does not name keep their results of an earlier one.
Results are written after every row. Each row names the sources, packages and hardware that made it; what stands at the
top of the result file is of the call that wrote it.

With `--minutes` a call ends after so long; with exit code 75 the same command goes on where its last checkpoint stands.
Where a piece was too short to get anywhere, the exit code is 1.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

import harness
from harness import RESULTS, Benchmark, Row, spread
from pieces import INTERRUPTED, UNFINISHED, Ledger, TimeLimit
from sidrec.artifact import Artifact, open_artifact
from sidrec.cli.session import run_settings
from sidrec.config import RunSettings, build, kind_of, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.errors import SidrecError
from sidrec.evaluation.significance import Interval, paired_bootstrap
from sidrec.recipes import label
from sidrec.stages.collaborative import CollaborativeVectors
from sidrec.stages.embed import embeddings_name
from sidrec.stages.evaluate import PER_USER
from sidrec.stages.expected import verdicts
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import Recipe, load_recipe
from sidrec.stages.run import run_recipe
from sidrec.stages.train import SCRATCH_DIGITS
from sidrec.training.record import TrainRecord
from sidrec.training.watch import CHECKPOINT_SECONDS

DIRTY = "+dirty"
METRICS = ("hit@5", "hit@10", "ndcg@5", "ndcg@10")
TRAINING = "s training"
CURVE = "validation"
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
    Published("TIGER, table of LETTER", "Beauty", (0.0395, 0.0610, 0.0262, 0.0331)),
    Published("LETTER-TIGER, table of LETTER", "Beauty", (0.0431, 0.0672, 0.0286, 0.0364)),
    Published("LETTER-TIGER, released code run by Cornac's authors", "Beauty", (0.0413, 0.0645, 0.0268, 0.0343)),
    Published("LETTER-TIGER, Cornac, 20 beams", "Beauty", (0.0420, 0.0656, 0.0279, 0.0354)),
    Published("LETTER-TIGER, Cornac, 50 beams", "Beauty", (0.0429, 0.0670, 0.0282, 0.0360)),
    Published("LC-Rec, table of LETTER", "Beauty", (0.0443, 0.0642, 0.0311, 0.0374)),
    Published("LETTER-LC-Rec, table of LETTER", "Beauty", (0.0505, 0.0703, 0.0355, 0.0418)),
    Published("SASRec, table of LETTER", "Instruments", (0.0751, 0.0947, 0.0627, 0.0690)),
    Published("TIGER, table of LETTER", "Instruments", (0.0870, 0.1058, 0.0737, 0.0797)),
    Published("LETTER-TIGER, table of LETTER", "Instruments", (0.0909, 0.1122, 0.0763, 0.0831)),
    Published("LC-Rec, table of LETTER", "Instruments", (0.0824, 0.1006, 0.0712, 0.0772)),
    Published("LETTER-LC-Rec, table of LETTER", "Instruments", (0.0913, 0.1115, 0.0789, 0.0854)),
    Published(
        "LETTER-LC-Rec, released code run by a reader (issue 15 of LETTER's repository)",
        "Instruments",
        (0.0651, 0.0777, 0.0556, 0.0596),
    ),
)
DATA = "set SIDREC_DATA to the folder that holds letter/Beauty and letter/Instruments"
STUCK = f"""error: nothing came of this piece, and the same would come of the next
  next: give more --minutes; a checkpoint is written every {CHECKPOINT_SECONDS:.0f} s, and scoring is not cut up"""
ROWS = {
    f"{recipe} {dataset}": (recipe, dataset)
    for recipe in ("sasrec-amazon", "item-decoder-amazon", "ensemble-amazon", "letter-tiger-published")
    for dataset in ("Beauty", "Instruments")
}
QUICK = [name for name in ROWS if not name.startswith("letter-tiger")]
"""Rows that are run unless others are named, members before ensembles."""


@dataclass(frozen=True)
class Made(Row):
    """A figure and what made it.

    Attributes:
        trained: commit of the sources that trained the recommender, with `+dirty` where they were changed; empty where
            that is not known.
        scored: likewise of those that scored it.
        versions: of the packages that trained it, in its last piece; only the library's where an earlier call trained
            it and left no row.
        hardware: on which it was trained, in its last piece; empty likewise.
    """

    trained: str = ""
    scored: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)

    @property
    def is_of_changed_sources(self) -> bool:
        """Whether no commit holds the sources that made it."""
        return any(commit.endswith(DIRTY) for commit in (self.trained, self.scored))


def commit_of(artifact: Artifact) -> str:
    """The commit that made an artefact, with `+dirty` where sources were changed; empty where that is not known."""
    source = artifact.manifest.get("source")
    return source["commit"] + (DIRTY if source["dirty"] else "") if source else ""


def one(folder: RunFolder, recipe_name: str, settings: Sequence[str], dataset: str, run: RunSettings) -> list[Made]:
    """Run a recipe, or go on with it; its figures."""
    name = recommender_name(recipe_name, settings, run.seed)
    recipe = load_recipe(recipe_name, [*settings, *of_rows(recipe_name, settings, run.seed)])
    ledger = Ledger(folder.path / "pieces.json")
    if not folder.recommender(name).exists():
        ledger.note(name, gpu_of(run))
    steps = run_recipe(folder, recipe, run, name=name)
    scored, recommender = steps[-1].result.artifact, open_artifact(folder.recommender(name), "recommender")
    scores, trained = scored.summary, recommender.summary
    counts = open_artifact(folder.dataset, "dataset").summary
    case, variant = f"{dataset}, test, seed {run.seed}", " ".join([recipe_name, *settings])
    bench = Benchmark("")
    for metric in METRICS:
        bench.row(case, variant, value=scores[metric], unit=metric)
    gpu = ledger.hardware(name)
    bench.row(case, variant, value=trained["train_seconds"], unit=f"{TRAINING}, {gpu}" if gpu else TRAINING)
    chosen_by = recipe.evaluation.primary if recipe.training.select == "metric" else "loss"
    for step, value in trained["report"].get("validations", ()):
        unit = f"{chosen_by} on validation users after {step} steps"
        bench.row(f"{dataset}, {CURVE}, seed {run.seed}", variant, value=value, unit=unit)
    for member in build("recommender", recipe.recommender).member_names:
        for metric in METRICS:
            gap = gain(folder, name, member, metric)
            for end, value in {"mean": gap.mean, "95 % from": gap.low, "95 % to": gap.high}.items():
                what = f"{dataset}, difference to {member} on test, {end}, seed {run.seed}"
                bench.row(what, variant, value=value, unit=metric)
    for verdict in verdicts(recipe.expected, recipe.evaluation, counts, scores):
        print(verdict)
    made: dict[str, Any] = {"versions": {"sidrec": recommender.manifest["version"]}}
    if not next(step.result.skipped for step in steps if step.stage == "train"):
        made = {"versions": harness.versions(), "hardware": harness.hardware()}
    commits = {"trained": commit_of(recommender), "scored": commit_of(scored)}
    return [Made(**asdict(row), **commits, **made) for row in bench.rows]


def gain(folder: RunFolder, name: str, member: str, metric: str) -> Interval:
    """How much better an ensemble scores on test than one of its members, paired over users."""
    tables = [pl.read_parquet(folder.evaluation(each, "test") / PER_USER) for each in (name, member)]
    return paired_bootstrap(*(table[metric].to_numpy() for table in tables), seed=0)


def recommender_name(recipe: str, settings: Sequence[str], seed: int) -> str:
    """What the recommender of a row is called in its run.

    >>> recommender_name("sasrec", ["training.max_epochs=1"], 3)
    'sasrec-seed-3-training.max_epochs-1'
    """
    return label(" ".join([f"{recipe}-seed-{seed}", *settings]))


def of_rows(recipe: str, settings: Sequence[str], seed: int) -> list[str]:
    """The setting by which an ensemble finds its members as rows call them, of the same seed and settings.

    >>> of_rows("ensemble-amazon", [], 3)
    ['recommender.members=[sasrec-amazon-seed-3,item-decoder-amazon-seed-3]']
    """
    members = build("recommender", load_recipe(recipe).recommender).member_names
    names = [recommender_name(member, settings, seed) for member in members]
    return [f"recommender.members=[{','.join(names)}]"] if names else []


def gpu_of(run: RunSettings) -> str:
    """The name of the GPU that a run uses; empty where it uses none."""
    return torch.cuda.get_device_name() if run.torch_device() == "cuda" else ""


def where_it_stands(folder: RunFolder, name: str, recipe: Recipe, run: RunSettings) -> str:
    """How far an unfinished row has come."""
    what = f"{folder.path.name}, {name}"
    if folder.recommender(name).exists():
        return f"{what}: trained, not scored yet"
    scratch = f"{name}-{'[0-9a-f]' * SCRATCH_DIGITS}"
    if kind_of(recipe.embeddings) == CollaborativeVectors.Config().kind:
        vectors = embeddings_name(folder, recipe.embeddings, run)
        if not folder.embeddings(vectors).exists():
            scratch, what = f"embed-{vectors}", f"{what}, item vectors"
    found = list(folder.scratch("").glob(f"{scratch}/checkpoints/checkpoint-*"))
    if not found:
        return f"{what}: no checkpoint yet"
    last = max(found, key=lambda path: path.stat().st_mtime)
    step, seconds = int(last.name.rpartition("-")[2]), TrainRecord.load(last).seconds
    return f"{what}: {seconds / 60:.1f} min so far; last checkpoint: step {step:,}"


def landmarks(runs: Path) -> set[Path]:
    """What a later call need not do again."""
    return {*runs.rglob("artifact.json"), *runs.rglob("checkpoint-*")}


def table(rows: list[Made]) -> str:
    """Ours and published figures, a block a dataset, in Markdown."""
    lines = [
        "| dataset | what | hit@5 | hit@10 | NDCG@5 | NDCG@10 | seeds | training |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for dataset in ("Beauty", "Instruments"):
        ours = [row for row in rows if row.case.startswith(f"{dataset}, test")]
        for variant in dict.fromkeys(row.variant for row in ours):
            cells = [
                spread([row.value for row in ours if (row.variant, row.unit) == (variant, unit)]) for unit in METRICS
            ]
            costs = [row for row in ours if row.variant == variant and row.unit.startswith(TRAINING)]
            hardware = dict.fromkeys(row.unit.removeprefix(TRAINING) for row in costs)
            cost = f"{statistics.mean(row.value for row in costs) / 60:.0f} min{''.join(hardware)}"
            is_changed = any(row.is_of_changed_sources for row in ours if row.variant == variant)
            what = f"`{variant}`{', by sources with uncommitted changes' if is_changed else ''}"
            lines.append(f"| {dataset} | {what} | {' | '.join(cells)} | {len(costs)} | {cost} |")
        for row in PUBLISHED:
            if row.dataset == dataset:
                cells = [f"{value:.4f}" for value in row.values]
                lines.append(f"| {dataset} | {row.name} | {' | '.join(cells)} | | |")
    return "\n".join([*lines, *curves(rows)]) + "\n"


def curves(rows: list[Made]) -> list[str]:
    """What validation said during trainings, a line each."""
    lines: list[str] = []
    of_curve = [row for row in rows if f", {CURVE}, " in row.case]
    for case, variant in dict.fromkeys((row.case, row.variant) for row in of_curve):
        own = [row for row in of_curve if (row.case, row.variant) == (case, variant)]
        steps = {int(row.unit.split()[-2]): row.value for row in own}
        points = ", ".join(f"{steps[step]:.4f} after {step:,}" for step in sorted(steps))
        lines += ["", f"`{variant}`, {case}: {own[0].unit.split()[0]} {points} steps."]
    return lines


def earlier(results: Path = RESULTS) -> list[Made]:
    """The rows of the last call."""
    path = results / "reproduction.json"
    if not path.is_file():
        return []
    return [Made(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def arguments(words: Sequence[str] | None) -> Any:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=QUICK, metavar="ROW", help=f"of {list(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each is a training of every row")
    parser.add_argument("--run", type=Path, help="folder that keeps runs and checkpoints")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings laid over the recipes")
    parser.add_argument("--minutes", type=float, help="stop after so long; needs --run")
    parser.add_argument("--out", type=Path, help="folder for figures and table instead of the repository's")
    wanted = parser.parse_args(words)
    if wanted.minutes is not None and wanted.run is None:
        parser.error("--minutes needs --run FOLDER, which keeps what the next call goes on with")
    if wanted.minutes is not None and wanted.minutes <= 0:
        parser.error(f"--minutes must be more than 0, not {wanted.minutes:g}")
    return wanted


def run_rows(wanted: Any, data: Path, runs: Path, keep: Callable[[list[Made]], None]) -> int:
    """Run the rows one after the other and keep each when it is finished; the exit code."""
    before, stands = landmarks(runs), lambda: "reading the data"
    with TimeLimit(wanted.minutes) as limit:
        try:
            with run_settings(device=wanted.device, threads=wanted.threads) as run:
                for row in wanted.rows:
                    recipe, dataset = ROWS[row]
                    here, stands = RunFolder(runs / dataset), lambda: "reading the data"
                    prepare(here, parse(PrepareConfig, {"reader": "letter"}), data / dataset, run)
                    for seed in wanted.seeds:
                        seeded, name = replace(run, seed=seed), recommender_name(recipe, wanted.set, seed)
                        stands = partial(where_it_stands, here, name, load_recipe(recipe, wanted.set), seeded)
                        keep(one(here, recipe, wanted.set, dataset, seeded))
        except KeyboardInterrupt:
            print(f"stopped: {stands()}", flush=True)
            if not limit.is_over:
                return INTERRUPTED
            if landmarks(runs) == before:
                print(STUCK, file=sys.stderr)
                return 1
            print("run the same command again to go on")
            return UNFINISHED
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run, print, write the results and the table of the documentation; the exit code."""
    wanted = arguments(words)
    data = Path(os.environ.get("SIDREC_DATA", "")) / "letter"
    if "SIDREC_DATA" not in os.environ and wanted.rows is QUICK:
        print(f"SKIPPED: {DATA}")
        return 0
    if not all((data / ROWS[row][1]).is_dir() for row in wanted.rows):
        print(f"error: no data in {data}\n  next: {DATA}", file=sys.stderr)
        return 2
    done: list[Made] = []

    def keep(rows: list[Made]) -> None:
        done.extend(rows)
        save(done, wanted.out)

    with tempfile.TemporaryDirectory() as scratch:
        try:
            code = run_rows(wanted, data, wanted.run or Path(scratch), keep)
        except SidrecError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
    if done:
        print(places(wanted.out)[1].read_text(encoding="utf-8"))
    return code


def places(out: Path | None) -> tuple[Path, Path]:
    """The folder of the result file, and the page of the table."""
    return (RESULTS, PAGE) if out is None else (out, out / PAGE.name)


def save(done: list[Made], out: Path | None) -> None:
    """Write figures and table, rows of earlier calls among them."""
    results, page = places(out)
    known, named = earlier(results), {(row.case, row.variant) for row in done}
    rows = [remembered(row, known) for row in done]
    rows += [row for row in known if (row.case, row.variant) not in named]
    rows.sort(key=lambda row: (row.case, row.variant))
    Benchmark("reproduction", list(rows)).write(results)
    page.write_text(table(rows), encoding="utf-8")


def remembered(row: Made, known: list[Made]) -> Made:
    """The row; of a recommender that an earlier call trained, with the packages and hardware that it noted."""
    if not row.hardware:
        for other in known:
            if replace(row, scored=other.scored, versions=other.versions, hardware=other.hardware) == other:
                return replace(other, scored=row.scored)
    return row


if __name__ == "__main__":
    sys.exit(main())
