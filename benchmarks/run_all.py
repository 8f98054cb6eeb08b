"""Run every benchmark script of this folder, or those named, and print one table of all results.

python benchmarks/run_all.py [NAME …] — a script that fails does not stop the others; the exit code tells.
"""

import json
import subprocess
import sys
from pathlib import Path

from harness import RESULTS, table

HERE = Path(__file__).resolve().parent
NOT_SCRIPTS = ("ablation", "harness", "pieces", "run_all")


def scripts() -> dict[str, Path]:
    """Name → path of every benchmark script."""
    found = sorted(HERE.glob("*.py"))
    return {path.stem: path for path in found if path.stem not in NOT_SCRIPTS and not path.stem.startswith("_")}


def main(names: list[str]) -> int:
    """Run the scripts one after the other; returns the number that failed."""
    known = scripts()
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark '{unknown[0]}'; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or known:
        print(f"--- {name}", flush=True)
        if subprocess.run([sys.executable, str(known[name])], cwd=HERE.parent, check=False).returncode:
            failed.append(name)
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows += [row | {"case": f"{found['name']}: {row['case']}"} for row in found["rows"]]
    print("--- all results in benchmarks/results")
    print(table(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
