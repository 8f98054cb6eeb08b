"""Seeds: one number for a run, an independent stream for every use that has a name.

Adding a use never shifts the numbers another use draws, because streams are keyed by name.
"""

import zlib

import numpy as np

from sidrec.types import FloatArray, IntArray

__all__ = ["generator", "numbered_uniforms", "torch_seed"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd step between the states of SplitMix64: 2⁶⁴ over the golden ratio."""


def generator(seed: int, *names: str) -> np.random.Generator:
    """The numpy stream of `seed` for the use called `names`.

    >>> generator(1, "kmeans", "level 0").integers(1000) == generator(1, "kmeans", "level 0").integers(1000)
    np.True_
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def torch_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for a `torch.Generator`, derived like `generator`."""
    return int(generator(seed, *names).integers(2**63 - 1))


def numbered_uniforms(seed: int, *numbers: IntArray) -> FloatArray:
    """One number in [0, 1) for every tuple of numbers, float64 of their common shape.

    A tuple's number depends on the seed and the tuple alone, never on what else is drawn, or in which order. The mixing
    is SplitMix64's, once a number (Steele, Lea and Flood, 2014, *Fast Splittable Pseudorandom Number Generators*).

    Args:
        seed: at least 0.
        numbers: int arrays of one dimension or more, of shapes that broadcast.

    >>> whole = numbered_uniforms(1, np.array([[5], [7]]), np.arange(3))
    >>> bool((numbered_uniforms(1, np.array([7]), np.arange(3)) == whole[1]).all())
    True
    """
    state = np.full((1,) * max(array.ndim for array in numbers), seed % 2**64, dtype=np.uint64)
    for array in numbers:
        state = _mixed(state + (array.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return (state >> np.uint64(11)) * 2.0**-53


def _mixed(state: IntArray) -> IntArray:
    """The finalizer of SplitMix64: every bit of the result depends on every bit of the state."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
