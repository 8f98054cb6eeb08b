"""What the command line sets up around a stage: threads, quiet libraries, progress on stderr.

Nothing here happens in the library; a program that imports `sidrec` keeps its own settings.
"""

import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidrec.config import RunSettings
    from sidrec.team import Team

__all__ = ["quiet_libraries", "run_settings"]

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


def quiet_libraries() -> None:
    """Keep other libraries' warnings and logs off the terminal; what the user set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextmanager
def run_settings(
    seed: int = 0, device: str = "auto", threads: int = 0, *, together: bool = False
) -> Generator["RunSettings"]:
    """The settings of this run, with progress shown on stderr as long as the block lasts.

    Args:
        seed: of everything that is drawn.
        device: `auto`, `cpu`, `cuda`, ….
        threads: CPU threads; 0 leaves the choice to the libraries.
        together: share the work with the other processes that `torchrun` started; the first one shows progress.

    Raises:
        ConfigError: `torchrun` started several processes, and the work is not shared.
        TeamError: they do not meet.
    """
    if threads:
        _limit_threads(threads)
    from sidrec.cli.interrupts import listening
    from sidrec.cli.progress import open_progress
    from sidrec.config import RunSettings
    from sidrec.progress import Silent
    from sidrec.team import launched

    processes = launched() if together else nullcontext(_alone())
    with open_progress(sys.stderr) as display, listening(display) as progress, processes as team:
        yield RunSettings(seed=seed, device=device, progress=progress if team.leads else Silent(), team=team)


def _alone() -> "Team":
    """A process alone.

    Raises:
        ConfigError: there are others, each of which would do the whole work and write to the same place.
    """
    from sidrec.errors import ConfigError
    from sidrec.team import ALONE

    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1":
        raise ConfigError(
            f"WORLD_SIZE is {size}, but only 'train', 'evaluate' and 'recommend --input FILE' share their work",
            where="environment",
            next="start it without torchrun, or unset WORLD_SIZE",
        )
    return ALONE


def _limit_threads(threads: int) -> None:
    """Libraries read these variables when they are loaded; torch may be loaded already."""
    for name in THREADS:
        os.environ[name] = str(threads)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
