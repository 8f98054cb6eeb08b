"""Random numbers that depend on what they are for, and on nothing else.

A generator hands its numbers out in order of asking, so what a user draws would change with who was
served before, how wide the batch was padded and on which device. Here a number is a hash of (seed,
user, level, which): any of them can be computed alone, in any order, in one tensor operation. It is
made of whole numbers, which all devices compute alike. No global random state is involved.
"""

from torch import Tensor

__all__ = ["Noise"]

GAMMA = -0x61C8864680B583EB
"""The golden ratio's 64 bits, as a signed integer: what splitmix64 counts by."""
MIXERS = ((-0x40A7B892E31B1A47, 30), (-0x6B2FB644ECCEEE15, 27))
"""Multipliers of splitmix64's finaliser, as signed integers, and the shifts before them."""


class Noise:
    """The noise of a batch of users.

    Args:
        seed: 63 bits.
        users_U: int64[U], what tells the users apart.

    >>> import torch
    >>> alone, other = Noise(5, torch.tensor([7])), Noise(5, torch.tensor([3, 7]))
    >>> (alone.uniform(0, torch.tensor([[2]]))[0] == other.uniform(0, torch.tensor([[1], [2]]))[1]).item()
    True
    """

    def __init__(self, seed: int, users_U: Tensor) -> None:
        self._users_U1 = _mix(users_U[:, None] * GAMMA + seed)

    def uniform(self, level: int, which_UM: Tensor) -> Tensor:
        """float64[U, M], even over the open interval from 0 to 1, independent for each user, level and `which`.

        Args:
            level: at least 0.
            which_UM: int64[U, M], the number of a draw or of a node.
        """
        keys_U1 = _mix(self._users_U1 ^ level).to(which_UM.device)
        bits_UM = _mix(keys_U1 + which_UM * GAMMA)
        # 52 bits and a half: 53 would round up to 1.
        return (_shifted(bits_UM, 12).double() + 0.5) * 2.0**-52

    def gumbel(self, level: int, which_UM: Tensor) -> Tensor:
        """float64[U, M], standard Gumbel noise."""
        return -(-self.uniform(level, which_UM).log()).log()


def _mix(values: Tensor) -> Tensor:
    """A hash of each 64-bit integer (the finaliser of splitmix64, Steele et al., 2014; wrapping arithmetic)."""
    for multiplier, shift in MIXERS:
        values = (values ^ _shifted(values, shift)) * multiplier
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shifted right with zeros coming in, as for unsigned integers."""
    return (values >> by) & ((1 << (64 - by)) - 1)
