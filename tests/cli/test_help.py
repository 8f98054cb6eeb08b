"""Help answers at once and loads nothing heavy; usage errors say what was meant."""

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sklearn", "polars", "matplotlib", "sentence_transformers", "httpx2")
VERBS = (
    "prepare",
    "embed",
    "enrich",
    "tokenize",
    "train",
    "tune",
    "run",
    "recommend",
    "evaluate",
    "compare",
    "cold-start",
    "inspect",
    "export",
    "recipes",
)


@pytest.mark.parametrize("arguments", [["--help"], ["recipes", "ls"], ["run", "--help"]], ids=" ".join)
def test_light_commands_load_nothing_heavy_and_answer_at_once(arguments: list[str]) -> None:
    code = (
        f"import sys; from sidrec.cli.main import main; code = main({arguments!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    libraries = spent("import typer, rich.table, pydantic, yaml")[1]
    done, seconds = spent(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert done.stdout
    assert seconds < 3.5 * libraries, "usually 2.4 times; torch alone would be ten times as much"


def spent(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A process that runs some code, and its CPU seconds."""
    before = children_seconds()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done, children_seconds() - before


def children_seconds() -> float:
    """CPU seconds of finished child processes: unlike the clock on the wall, other work hardly moves them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_names_every_verb(sidrec) -> None:
    done = sidrec("--help")
    assert done.code == 0
    assert all(verb in done.out for verb in VERBS)


def test_version(sidrec) -> None:
    done = sidrec("--version")
    assert done.code == 0
    assert done.out.startswith("sidrec 0.")


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "sidrec", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sidrec 0.")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["prepar"], "prepare"),
        (["prepare", "--run", "x"], "--reader"),
        (["recommend", "nowhere"], "--history"),
        (["evaluate", "nowhere", "--split", "train"], "valid"),
        (["recommend", "nowhere", "--history", "1", "-k", "0"], "-k"),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_option(sidrec, arguments: list[str], hint: str) -> None:
    done = sidrec(*arguments)
    assert done.code == 2
    assert hint in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
