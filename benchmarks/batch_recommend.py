"""Users per second and peak memory of `recommend_users`, by the number of users.

A small SASRec and popularity with random weights and counts (which change no cost), 10,000 items, histories of 1 to 30
items, 10 items a user, Parquet to Parquet. Every run is a process of its own, of one thread, so that its peak memory
is its own; a tenth of the users gives the base that the memory of all of them is compared with. Loading the
recommender, reading, digests and joining are in the seconds. Also: what a generative recommender makes anew in each
`rank` call, beside ranking 64 users (a part has 8,192).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from harness import Benchmark, measure, peak_memory
from sidrec.artifact import create
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.sequences import Histories
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.popularity import Popularity, PopularityModel, PopularityModelConfig
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecModel, SASRecModelConfig
from sidrec.recommenders.tiger import Tiger
from sidrec.stages.recommend_users import recommend_users
from sidrec.testing.toy import random_semantic_ids

ITEMS, LONGEST, K = 10_000, 30, 10
SIZES = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "max_history": LONGEST}


def catalog() -> Catalog:
    """Items of a synthetic catalogue."""
    return Catalog(pl.DataFrame({"item_id": [f"item-{row}" for row in range(ITEMS)]}))


def recommenders() -> dict[str, Recommender]:
    """Untrained, of the usual size."""
    torch.manual_seed(0)
    sasrec, popularity = SASRec(SASRec.Config(**SIZES)), Popularity(Popularity.Config())
    sasrec.model = SASRecModel(SASRecModelConfig(num_items=ITEMS, **SIZES)).eval()
    popularity.model = PopularityModel(PopularityModelConfig(num_items=ITEMS)).eval()
    popularity.model.counts.copy_(torch.rand(ITEMS))
    found: dict[str, Any] = {"popularity": popularity, "sasrec": sasrec}
    for part in found.values():
        part.catalog = catalog()
    return found


def write_users(path: Path, num_users: int) -> None:
    """Histories of 1 to `LONGEST` items, most of them short."""
    draw = np.random.default_rng(0)
    lengths = draw.geometric(0.12, size=num_users).clip(1, LONGEST)
    items = pl.Series([f"item-{row}" for row in range(ITEMS)]).gather(draw.integers(ITEMS, size=lengths.sum()))
    owners = np.repeat(np.arange(num_users), lengths)
    table = pl.DataFrame({"user_id": owners, "history": items}).group_by("user_id", maintain_order=True).agg("history")
    table.write_parquet(path)


def one(folder: Path, name: str, users: str) -> None:
    """A run in this process; prints its figures as JSON."""
    torch.set_num_threads(1)
    wall, cpu, before = time.perf_counter(), time.process_time(), peak_memory()
    report = recommend_users(
        folder / name, folder / users, folder / f"top-{name}-{users}", run=RunSettings(device="cpu")
    )
    assert report is not None
    figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_memory()}
    print(json.dumps({**figures, "before": before, "users": report.summary["users"]}))


def run(folder: Path, name: str, users: str) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--one", str(folder), name, users]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def setup_of_a_call(benchmark: Benchmark) -> None:
    """What a generative recommender makes anew in each `rank` call, beside ranking a few users."""
    torch.manual_seed(0)
    tiger = Tiger(Tiger.Config())
    tiger.catalog = catalog()
    tiger.semantic_ids = random_semantic_ids(tiger.catalog, (256,) * 4)
    tiger.model = tiger.new_model(tiger.vocabulary).eval()
    histories = Histories.of(np.random.default_rng(0).integers(ITEMS, size=(64, 7)).astype(np.int32))
    request = tiger.request(K)

    def rank() -> object:
        return tiger.rank(histories, request, RunSettings(device="cpu"))

    scorer, ranked = measure(lambda: tiger.scorer("level"), 5), measure(rank, 3)
    case = "TIGER of 10,000 items, one call"
    benchmark.row(case, "scorer made anew", "", 1000 * scorer.cpu_s, "CPU ms", spread=scorer.spread)
    benchmark.row(case, "64 users ranked", "", 1000 * ranked.cpu_s, "CPU ms", spread=ranked.spread)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "NAME", "USERS"))
    given = parser.parse_args()
    if given.one:
        one(Path(given.one[0]), *given.one[1:])
        return
    torch.set_num_threads(1)
    benchmark = Benchmark("batch_recommend")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, part in recommenders().items():
            with create(folder / kind, kind="recommender", config={}) as writer:
                part.save(writer.path)
        sizes = {f"{count:,} users": count for count in (given.users // 10, given.users)}
        for label, count in sizes.items():
            write_users(folder / f"{count}.parquet", count)
            for kind in ("popularity", "sasrec"):
                found = run(folder, kind, f"{count}.parquet")
                benchmark.row(kind, label, "", count / found["wall"], "users per second")
                benchmark.row(kind, label, "", count / found["cpu"], "users per CPU second")
                benchmark.row(kind, label, "", found["cpu"], "CPU s")
                benchmark.row(kind, label, "", found["peak"], "MB at the peak")
                print(kind, label, found, flush=True)
    setup_of_a_call(benchmark)
    benchmark.save()


if __name__ == "__main__":
    main()
