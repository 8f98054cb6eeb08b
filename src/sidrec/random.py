"""Seeds: one number for a run, an independent stream for every use that has a name.

Adding a use never shifts the numbers another use draws, because streams are keyed by name.
"""

import zlib

import numpy as np

__all__ = ["generator", "torch_seed"]


def generator(seed: int, *names: str) -> np.random.Generator:
    """The numpy stream of `seed` for the use called `names`.

    >>> generator(1, "kmeans", "level 0").integers(1000) == generator(1, "kmeans", "level 0").integers(1000)
    np.True_
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def torch_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for a `torch.Generator`, derived like `generator`."""
    return int(generator(seed, *names).integers(2**63 - 1))
