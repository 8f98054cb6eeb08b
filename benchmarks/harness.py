"""The common frame of the benchmark scripts: measure, compare within one run, print, write.

A script in this folder does `from harness import Benchmark, compare`, adds rows and saves. Both
sides of a ratio are measured in the same process, in turns, so that a busy machine slows both. CPU
seconds stand beside wall seconds because they hardly change when somebody else uses the machine.
Left out: profiling, and charts.
"""

import gc
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Benchmark", "Row", "Timing", "compare", "measure", "peak_memory", "spread", "table"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
UNTIMED = ":(exclude)benchmarks/results"
PACKAGES = ("torch", "transformers", "numpy", "polars", "sidrec")


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one piece of work.

    Attributes:
        median_s: median wall-clock seconds.
        cpu_s: median CPU seconds of this process, all threads together, and of worker processes that it waited for.
        spread: (slowest - fastest) / median of the wall-clock seconds.
    """

    median_s: float
    cpu_s: float
    spread: float


@dataclass(frozen=True)
class Row:
    """One figure; `ratio` says how many times better it is than the baseline's (1 for the baseline itself)."""

    case: str
    variant: str
    baseline: str
    value: float
    unit: str
    ratio: float | None
    spread: float | None


@dataclass
class Benchmark:
    """The rows of one script: collected, printed as a table and written to `results/NAME.json`."""

    name: str
    rows: list[Row] = field(default_factory=list)

    def row(
        self,
        case: str,
        variant: str,
        baseline: str = "",
        value: float = 0.0,
        unit: str = "",
        ratio: float | None = None,
        spread: float | None = None,
    ) -> None:
        """Add one figure."""
        self.rows.append(Row(case, variant, baseline, float(value), unit, ratio, spread))

    def timings(self, case: str, found: Mapping[str, Timing], baseline: str) -> None:
        """Add wall and CPU seconds of every variant, each with its ratio to the baseline."""
        base = found[baseline]
        for variant, timing in found.items():
            self.row(case, variant, baseline, timing.median_s, "s", base.median_s / timing.median_s, timing.spread)
            cpu_ratio = base.cpu_s / timing.cpu_s if timing.cpu_s else None
            self.row(case, variant, baseline, timing.cpu_s, "CPU s", cpu_ratio)

    def save(self, folder: Path = RESULTS) -> Path:
        """Print the table and write the JSON file; returns its path."""
        path = self.write(folder)
        print(f"{self.name} · {hardware()['cpu']} · commit {commit()[:12]}")
        print(table([asdict(row) for row in self.rows]))
        return path

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the JSON file alone; returns its path."""
        found: dict[str, Any] = {
            "name": self.name,
            "commit": commit(),
            "hardware": hardware(),
            "versions": versions(),
            "rows": [asdict(row) for row in self.rows],
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return path


def spread(values: Sequence[float]) -> str:
    """Mean and, with several seeds, standard deviation.

    >>> spread([0.01, 0.03]), spread([0.5])
    ('0.0200 ± 0.0141', '0.5000')
    """
    text = f"{statistics.mean(values):.4f}"
    return f"{text} ± {statistics.stdev(values):.4f}" if len(values) > 1 else text


def measure(work: Callable[[], object], repeats: int = 3, warmup: int = 1) -> Timing:
    """Run `work` a few times and take medians."""
    return compare({"": work}, "", repeats, warmup)[""]


def compare(
    variants: Mapping[str, Callable[[], object]], baseline: str, repeats: int = 3, warmup: int = 1
) -> dict[str, Timing]:
    """Measure all variants in turns (a, b, a, b, …) in one process.

    Raises:
        KeyError: the baseline is not among the variants.
    """
    if baseline not in variants:
        raise KeyError(f"the baseline '{baseline}' is not among {list(variants)}")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for turn in range(warmup + repeats):
        for name, work in variants.items():
            seconds = _once(work)
            if turn >= warmup:
                taken[name].append(seconds)
    return {name: _timing(pairs) for name, pairs in taken.items()}


def _once(work: Callable[[], object]) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """CPU seconds of this process, finely, and of its children that have ended, by the clock tick."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _timing(pairs: list[tuple[float, float]]) -> Timing:
    wall = [pair[0] for pair in pairs]
    median = statistics.median(wall)
    return Timing(median, statistics.median(pair[1] for pair in pairs), (max(wall) - min(wall)) / median)


def peak_memory() -> float:
    """Peak memory of this process in MB; `getrusage` alone would count what its parent held when it started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def commit() -> str:
    """Commit of the source tree, with `+dirty` where tracked files but results were changed; empty without git."""
    root = Path(__file__).resolve().parents[1]
    try:
        head, status = (
            subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", ".", UNTIMED])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+dirty" if status else "")


def hardware() -> dict[str, Any]:
    """CPU model, usable cores, memory in GB and the name of the first GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else None
    return {"cpu": _cpu_model(), "cores": cores, "memory_gb": memory and round(memory, 1), "gpu": _gpu_name()}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_name() -> str | None:
    # Asked of the driver's own tool: importing torch for its name would take seconds in every script.
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = subprocess.run(
        [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return (asked.stdout.splitlines() or [None])[0] if asked.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide speed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text in columns."""
    head = ["case", "variant", "value", "unit", "ratio", "baseline", "spread"]
    lines = [head]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}×"
        spread = "" if row["spread"] is None else f"{row['spread']:.0%}"
        lines.append([row["case"], row["variant"], f"{row['value']:.4g}", row["unit"], ratio, row["baseline"], spread])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    print(__doc__)
    sys.exit("this is the frame; run a benchmark script or 'make bench'")
