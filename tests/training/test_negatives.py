import torch

from sidrec.training.negatives import draw_each, draw_shared

SHARES = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64)


def frequencies(rows, num=4):
    return torch.bincount(rows.flatten(), minlength=num) / rows.numel()


def test_shared_draws_follow_the_shares():
    torch.manual_seed(0)
    found = frequencies(draw_shared(SHARES, 20_000))
    assert found[1] == 0
    torch.testing.assert_close(found.double(), SHARES, atol=0.02, rtol=0)


def test_own_draws_never_hit_the_target_and_keep_the_proportions_of_the_others():
    torch.manual_seed(0)
    targets = torch.tensor([0, 1, 2, 3])
    rows = draw_each(SHARES, targets, 20_000)
    assert rows.shape == (4, 20_000)
    for target in range(4):
        found = frequencies(rows[target]).double()
        expected = SHARES.clone()
        expected[target] = 0
        assert found[target] == 0
        torch.testing.assert_close(found, expected / expected.sum(), atol=0.02, rtol=0)


def test_every_item_but_the_target_is_drawn_from_a_large_catalogue():
    torch.manual_seed(0)
    shares = torch.full((1000,), 1e-3, dtype=torch.float64)
    targets = torch.arange(1000)
    rows = draw_each(shares, targets, 100)
    assert not (rows == targets[:, None]).any()
    assert len(rows.unique()) == 1000


def test_draws_come_from_the_global_state_alone():
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append((draw_shared(SHARES, 50), draw_each(SHARES, torch.tensor([2]), 50)))
    assert all(torch.equal(one, two) for one, two in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])
