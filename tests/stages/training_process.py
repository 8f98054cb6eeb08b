"""A run with a toy dataset; as a script, one process that trains a tiny recommender in it.

python -m tests.stages.training_process RUN NAME RECIPE SETTING… writes a checkpoint after every step, and to
RUN/begun the step that it begins at.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sidrec.config import RunSettings
from sidrec.progress import Advance
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe
from sidrec.stages.train import train
from sidrec.training import watch

SIZES = ["recommender.d_model=16", "recommender.num_heads=2", "recommender.d_ff=16", "recommender.num_layers=1"]
TRAINING = [
    "training.max_steps=60",
    "training.batch_size=32",
    "training.validate_every=7",
    "training.validate_users=8",
    "training.patience=0",
]
SETTINGS = ["tiger", *SIZES, "recommender.d_kv=8", *TRAINING]
NODES = ["item-decoder", *SIZES, *TRAINING, "recommender.outputs=nodes", "training.batch_size=12"]
AVERAGED = ["training.accumulation=2", "training.ema_decay=0.9", "training.average=3", "recommender.temperature=0.8"]


@contextmanager
def note_first(task: str, total: float | None) -> Generator[Advance]:
    """A display that writes down how many steps were done when training began."""
    first: list[float] = []

    def advance(steps: float = 1, note: str = "") -> None:
        if task == "train" and not first:
            first.append(steps)
            with Path(sys.argv[1], "begun").open("a") as file:
                file.write(f"{0 if note else steps}\n")

    yield advance


def main(folder: Path, name: str, recipe: str, settings: list[str]) -> None:
    """Train the recommender `name`."""
    watch.CHECKPOINT_SECONDS = 0.0
    run = RunSettings(seed=3, device="cpu", progress=note_first)
    train(RunFolder(folder), load_recipe(recipe, settings), run, name=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
