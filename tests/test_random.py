"""Streams are keyed by seed and name."""

from sidrec.random import generator, torch_seed


def test_streams_differ_by_seed_and_name_and_repeat() -> None:
    draws = {key: generator(*key).integers(10**9) for key in [(0, "a"), (0, "b"), (1, "a"), (0, "a", "b")]}
    assert len(set(draws.values())) == 4
    assert generator(0, "a").integers(10**9) == draws[0, "a"]
    assert 0 <= torch_seed(0, "x") < 2**63
