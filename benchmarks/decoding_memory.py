"""Peak memory of a search over long prompts: many beams against one.

The shape of SmolLM2-135M with random weights in float32, prompts of about 1,000 tokens (250 items of 4 codes), the
index of `decoding`. Every search runs in a process of its own; what is measured is its peak resident memory, and
how much of that is there before the search (libraries and weights).
"""

import subprocess
import sys

import torch

from decoding import SMOLLM_ROWS, Case, Setting
from harness import Benchmark, peak_memory

BEAMS, USERS, HISTORY = (1, 20, 50), (1, 8), 250


def search(beams: int, users: int) -> None:
    """Search once; print the peak before and after in MB."""
    torch.set_num_threads(1)
    setting = Setting(Case("smollm2-135m", SMOLLM_ROWS, users, HISTORY, beams), "cpu")
    work = setting.ours(setting.scorer("level"), "level")
    before = peak_memory()
    work()
    print(before, peak_memory())


def main() -> None:
    """Measure, print, save."""
    benchmark = Benchmark("decoding_memory")
    for users in USERS:
        base = 0.0
        for beams in BEAMS:
            asked = [sys.executable, __file__, str(beams), str(users)]
            out = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
            before, peak = map(float, out)
            base = base or peak
            case = f"SmolLM2-135M's shape, {1 + 4 * HISTORY} tokens, {users} users"
            benchmark.row(case, f"{beams} beams", "1 beam", peak, "MB at most", base / peak)
            benchmark.row(case, f"{beams} beams", value=peak - before, unit="MB of it during the search")
    benchmark.save()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        search(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
