"""Keeps what a borrowed training loop changes in the process from leaking out of a call.

Random states, environment variables and the log levels of the borrowed libraries are put back. Leaves out
determinism of kernels: on CPU they are deterministic already.
"""

import logging
import os
import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

__all__ = ["isolated_process", "isolated_rng", "silent_transformers"]


@contextmanager
def isolated_rng(seed: int | None = None) -> Generator[None]:
    """Run a block with its own random state and put the caller's back afterwards.

    Args:
        seed: of python, numpy and torch inside the block; None goes on from the caller's state.

    >>> with isolated_rng(1):
    ...     first = torch.rand(1)
    >>> with isolated_rng(1):
    ...     bool(first == torch.rand(1))
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)  # the borrowed loop draws from this state
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def isolated_process(seed: int) -> Generator[None]:
    """`isolated_rng`, and the environment and the borrowed libraries' log levels put back too."""
    environment = dict(os.environ)
    with isolated_rng(seed), silent_transformers():
        try:
            yield
        finally:
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update({name: text for name, text in environment.items() if os.environ.get(name) != text})


@contextmanager
def silent_transformers() -> Generator[None]:
    """No progress bars and nothing below an error from the borrowed libraries while the block runs."""
    level, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    accelerate = logging.getLogger("accelerate")
    accelerate_level = accelerate.level
    try:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        accelerate.setLevel(logging.ERROR)
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if has_bars:
            transformers_logging.enable_progress_bar()
        accelerate.setLevel(accelerate_level)
