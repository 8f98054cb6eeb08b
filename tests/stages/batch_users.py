"""A file of users of the cycle and a recommender for them; as a script, one process of a batch run.

python -m tests.stages.batch_users FOLDER OUTPUT [PARTS] makes the file OUTPUT, and kills itself after PARTS parts.
"""

import json
import os
import signal
import sys
from pathlib import Path

import polars as pl
from tests.stages.fake_recommender import Cycle, save_dataset, save_recommender

from sidrec.stages.layout import RunFolder
from sidrec.stages.parts import Parts, key_of
from sidrec.stages.recommend_users import BatchConfig, recommend_users
from sidrec.team import launched
from sidrec.testing.toy import cycle_dataset

NUM_ITEMS, NUM_USERS, SIZE = 24, 50, 8
SETTINGS = BatchConfig(k=3, part_size=SIZE)
HISTORIES = [[f"item-{(user + step) % NUM_ITEMS}" for step in range(1 + user % 4)] for user in range(NUM_USERS)]


def prepare(folder: Path) -> tuple[Path, Path]:
    """A recommender and a file of users."""
    run, dataset = RunFolder(folder / "run"), cycle_dataset(NUM_ITEMS)
    save_dataset(run, dataset)
    users = folder / "users.parquet"
    pl.DataFrame({"user_id": range(NUM_USERS), "history": HISTORIES}).write_parquet(users)
    return save_recommender(run, "cycle", Cycle(), dataset), users


def parts_of(output: Path) -> Parts:
    """The parts of the run that owns the folder beside an output; none where there is no folder."""
    request = Parts(output, 0).folder / "request.json"
    return Parts(output, key_of(json.loads(request.read_text())) if request.is_file() else 0)


def main(folder: Path, output: Path, kill_after: int | None) -> None:
    """One process of a batch run."""
    left, add = kill_after, Parts.add

    def add_or_die(self, number, table):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left = None if left is None else left - 1
        add(self, number, table)

    Parts.add = add_or_die
    with launched() as team:
        recommend_users(folder / "run/recommenders/cycle", folder / "users.parquet", output, SETTINGS, team=team)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
