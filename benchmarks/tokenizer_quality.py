"""Tokenizers on real texts: collisions, usage, purity, and what a recommender makes of the codes.

    SIDREC_DATA=<folder> python benchmarks/tokenizer_quality.py scientific [--seeds 0 1 2] [--run FOLDER]
    SIDREC_DATA=<folder> python benchmarks/tokenizer_quality.py yelp --seeds 0 --tokenizers rqkmeans rqvae letter

MiniLM vectors of all text fields (mean of the fields) → semantic IDs of 3 x 256 codes → the same small decoder, trained
for the same number of epochs, chosen on validation, scored on test (leave-one-out, item-level, whole catalogue, seen
items excluded). Every tokenizer but `random` and the published index settles collisions by `nearest_free`, which adds
no level. A seed decides tokenizer and decoder; LETTER's collaborative vectors are one SASRec's of seed 0. Finished
stages are not run again, so a killed benchmark goes on where it was.

`scientific` is collisiongenrec/Scientific (4,344 items, 8,317 users) with CollisionGenRec's own index of LETTER as
`given`; `yelp` joins the texts of letter/Yelp with the visits of s3rec/Yelp.txt (item i there is item i - 1 here;
repeated visits of a user are dropped, the first is kept).
"""

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from harness import Benchmark
from scientific import minilm
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.stages.embed import embed
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.tokenize import tokenize
from sidrec.stages.train import train
from sidrec.types import Json

FREE = "tokenizer.collisions=nearest_free"
LETTER = ["tokenizer.kind=letter", "tokenizer.sinkhorn=[0, 0, 0.003]", "tokenizer.init=balanced"]
WARM = ["tokenizer.kind=rqvae", "tokenizer.skip=true", "tokenizer.layers=[512, 256, 512]", "tokenizer.lr=5e-4", FREE]
TOKENIZERS: dict[str, list[str]] = {
    "rqkmeans": ["tokenizer.kind=rqkmeans", FREE],
    "rqkmeans-balanced": ["tokenizer.kind=rqkmeans", "tokenizer.balanced=true", FREE],
    "opq": ["tokenizer.kind=opq", FREE],
    "rqvae": ["tokenizer.kind=rqvae", FREE],
    "rqvae-warm": WARM,
    "letter": [*LETTER, "tokenizer.alpha=0.1", FREE],
    "fsq": ["tokenizer.kind=fsq", FREE],
    "random": ["tokenizer.kind=random"],
    "given": ["tokenizer.kind=given", "tokenizer.path={index}", "tokenizer.collisions=append_level"],
}
SMALL = [
    "recommender.d_model=64",
    "recommender.d_ff=256",
    "recommender.num_layers=2",
    "training.batch_size=32",
    "training.optimizer.lr=4e-3",
    "training.precision=bf16",
    "training.validate_users=300",
    "training.patience=0",
]
EPOCHS = {"scientific": 8, "yelp": 5}
COLLABORATIVE = {"yelp": ["collaborative={kind: collaborative, training: {max_epochs: 8, batch_size: 128}}"]}
"""A shorter training of the SASRec behind the collaborative vectors, where the default would take most of the time."""
INDEX = "collisiongenrec/Scientific/indexes/letter_native/*.index.json"
COLUMNS = (
    ("collisions before", "%"),
    ("moved", "%"),
    ("perplexity", "codes"),
    ("error", "share of variance"),
    ("purity", "share"),
    ("shared first code", "share of neighbours"),
    ("NDCG@10", ""),
    ("hit@10", ""),
)


def read_text(path: Path) -> str:
    """A text file, gzip'd or not."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    with gzip.open(f"{path}.gz", "rt", encoding="utf-8") as file:
        return file.read()


def yelp(data: Path, home: Path) -> Path:
    """Yelp in LETTER's layout, joined from two published files."""
    folder = home / "Yelp"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (line.split() for line in read_text(data / "s3rec" / "Yelp.txt").splitlines())
    visits = {str(int(user) - 1): list(dict.fromkeys(int(item) - 1 for item in items)) for user, *items in lines}
    (folder / "Yelp.inter.json").write_text(json.dumps(visits), encoding="utf-8")
    (folder / "Yelp.item.json").write_text(read_text(data / "letter" / "Yelp" / "Yelp.item.json"), encoding="utf-8")
    return folder


def dataset(name: str, data: Path, folder: RunFolder) -> None:
    """Prepare the data and make both kinds of vectors."""
    source = yelp(data, folder.path / "raw") if name == "yelp" else data / "collisiongenrec" / "Scientific"
    run = RunSettings()
    prepare(folder, parse(PrepareConfig, {"reader": {"kind": "letter", "index_file": "none"}}), source, run)
    vectors = minilm()
    recipe = load_recipe("letter", [*vectors, *COLLABORATIVE.get(name, [])])
    embed(folder, recipe.embeddings, run, name="text")
    assert recipe.collaborative is not None
    embed(folder, recipe.collaborative, run, name="collaborative")


def one(name: str, folder: RunFolder, method: str, seed: int, index: str) -> dict[str, float]:
    """Tokenize, train, score; the figures of one tokenizer and seed."""
    settings = [text.replace("{index}", index) for text in TOKENIZERS[method]]
    recipe = load_recipe("decoder", [*settings, *SMALL, f"training.max_epochs={EPOCHS[name]}"])
    run, label = RunSettings(seed=seed), f"{method}-seed-{seed}"
    names = {"embeddings": "text", "collaborative": "collaborative"}
    made = tokenize(folder, recipe.tokenizer, run, name=label, **names).artifact
    trained = train(folder, recipe, run, name=label, tokenizer=label).artifact
    scored = evaluate(folder.recommender(label), "test", recipe.evaluation, run).artifact
    report: Json = json.loads((made.path / "quality.json").read_text(encoding="utf-8"))
    return figures(report, scored.summary) | {"s training": trained.summary["train_seconds"]}


def figures(report: Json, scores: Json) -> dict[str, float]:
    """What the table says of one tokenizer and seed."""
    levels = report["before"]["levels"]
    purity, neighbours = report.get("purity"), report.get("neighbours")
    found: dict[str, float] = {
        "collisions before": 100 * report["before"]["collision_rate"],
        "moved": 100 * report["moved_items"] / report["before"]["items"],
        "perplexity": statistics.geometric_mean(level["perplexity"] for level in levels),
        "error": report.get("relative_reconstruction_error", float("nan")),
        "NDCG@10": scores["ndcg@10"],
        "hit@10": scores["hit@10"],
    }
    if purity:
        found["purity"] = purity["depths"][0]["purity"]
    if neighbours:
        found["shared first code"] = neighbours["same_prefix"][0]
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and, with several seeds, standard deviation of every figure, as a table in Markdown."""
    lines = ["| tokenizer | " + " | ".join(f"{name}{f' ({unit})' if unit else ''}" for name, unit in COLUMNS) + " |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for method, seeds in found.items():
        cells = [spread([seed[name] for seed in seeds if name in seed]) for name, _ in COLUMNS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation, with as many digits as the size asks for; a dash without values.

    >>> spread([0.01, 0.03]), spread([12.0]), spread([])
    ('0.0200 ± 0.0141', '12.0', '–')
    """
    known = [value for value in values if value == value]
    if not known:
        return "–"
    digits = 1 if max(known) >= 1.5 else 4
    text = f"{statistics.mean(known):.{digits}f}"
    return f"{text} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else text


def main() -> None:
    """Run, print, write the results and the table of the documentation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dataset", choices=sorted(EPOCHS), nargs="?", default="scientific")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--tokenizers", nargs="+", choices=sorted(TOKENIZERS), default=None)
    arguments.add_argument("--run", type=Path)
    arguments.add_argument("--threads", type=int, default=1)
    wanted: Any = arguments.parse_args()
    data = Path(os.environ.get("SIDREC_DATA", ""))
    if "SIDREC_DATA" not in os.environ or not (data / "letter").is_dir():
        print("SKIPPED: set SIDREC_DATA to the folder that holds collisiongenrec/Scientific, letter and s3rec")
        return
    torch.set_num_threads(wanted.threads)
    methods = wanted.tokenizers or [name for name in TOKENIZERS if wanted.dataset == "scientific" or name != "given"]
    index = next((str(path) for path in sorted(data.glob(f"{INDEX}*"))), "")
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(wanted.run or Path(scratch))
        dataset(wanted.dataset, data, folder)
        found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
        for seed in wanted.seeds:
            for method in methods:
                found[method].append(one(wanted.dataset, folder, method, seed, index))
                print(method, seed, {name: round(value, 4) for name, value in found[method][-1].items()}, flush=True)
    write(wanted.dataset, wanted.seeds, found)


def write(name: str, seeds: list[int], found: dict[str, list[dict[str, float]]]) -> None:
    """Result file and table."""
    benchmark = Benchmark(f"tokenizer_quality_{name}")
    for method, values in found.items():
        for figure, unit in (*COLUMNS, ("s training", "s")):
            known = [value[figure] for value in values if figure in value]
            for seed, value in zip(seeds, known, strict=False):
                benchmark.row(f"{name}, {figure}, seed {seed}", method, value=value, unit=unit or figure)
    benchmark.save()
    page = Path(__file__).parents[1] / "docs" / "assets" / f"tokenizers-{name}.md"
    page.write_text(table(found), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
