"""Seconds and memory of the prepare stage on generated interactions: read, 5-core, order, split, write.

    python benchmarks/prepare.py --interactions 20000000

Each case runs in a process of its own, so that its peak memory is its own. Users and items follow power laws, rows
come in random order, and times tie now and then, as in real logs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from harness import Benchmark
from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare

LIMIT_SECONDS, LIMIT_GIB = 300, 8


def generate(count: int, directory: Path) -> dict[str, Path]:
    """The same interactions as Parquet and CSV."""
    rng = np.random.default_rng(0)
    num_users, num_items = max(10, count * 3 // 40), max(10, count * 3 // 200)
    table = pl.DataFrame(
        {
            "user_id": _draw(rng, num_users, 0.6, count),
            "item_id": _draw(rng, num_items, 0.9, count),
            "timestamp": rng.integers(1_300_000_000, 1_600_000_000, count),
        }
    ).with_columns(
        pl.format("user-{}", pl.col("user_id").cast(pl.String).str.zfill(8)).alias("user_id"),
        pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(9)).alias("item_id"),
    )
    files = {"parquet": directory / "log.parquet", "csv": directory / "log.csv"}
    table.write_parquet(files["parquet"])
    table.write_csv(files["csv"])
    return files


def _draw(rng: np.random.Generator, size: int, exponent: float, count: int) -> np.ndarray:
    """`count` numbers below `size`; number k is drawn in proportion to (k + 1) ** -exponent."""
    weight = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(weight / weight[-1], rng.random(count)).clip(max=size - 1)


def child(path: Path, run: Path) -> None:
    """Prepare one file and print what it cost as JSON."""
    config = parse(PrepareConfig, {"reader": {"kind": "table", "time": "timestamp"}, "user_core": 5, "item_core": 5})
    start = time.perf_counter()
    result = prepare(RunFolder(run), config, path, RunSettings())
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "gib": _peak_gib()}
    print(json.dumps(cost | {"summary": result.artifact.summary}))


def _peak_gib() -> float:
    """Peak resident memory of this process alone; `ru_maxrss` would count what the parent held when it forked."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def main() -> None:
    """Generate, prepare each format in a child process, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    bench = Benchmark("prepare")
    with tempfile.TemporaryDirectory() as name:
        for variant, file in generate(options.interactions, Path(name)).items():
            command = [sys.executable, __file__, "--child", str(file), str(Path(name) / f"run-{variant}")]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            case, summary = f"{options.interactions:,} interactions, 5-core, leave-one-out", found["summary"]
            limit = f"limit {LIMIT_SECONDS} s"
            bench.row(case, variant, limit, found["wall"], "s", LIMIT_SECONDS / found["wall"])
            bench.row(case, variant, "", found["cpu"], "CPU s")
            bench.row(case, variant, f"limit {LIMIT_GIB} GiB", found["gib"], "GiB peak", LIMIT_GIB / found["gib"])
            for what in ("users", "items", "interactions"):
                bench.row(case, variant, "", summary[what], f"{what} kept")
    bench.save()


if __name__ == "__main__":
    main()
