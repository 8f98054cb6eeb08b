import pytest
import torch

from sidrec.config import parse
from sidrec.errors import ConfigError
from sidrec.training.item_loss import ObjectiveConfig, item_loss
from sidrec.training.objectives import IGNORE, full_softmax, gbce_beta, sampled_softmax

LABELS = torch.tensor([[3, IGNORE, 1], [0, 3, IGNORE]])
TARGETS = LABELS[LABELS != IGNORE]
COUNTS = torch.tensor([4.0, 1.0, 0.0, 2.0, 0.0])


def tensors():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4), torch.randn(5, 4)


def loss_of(seed=0, labels=LABELS, **fields):
    hidden, items = tensors()
    torch.manual_seed(seed)
    return item_loss(ObjectiveConfig(**fields), hidden, items, labels, COUNTS.log1p())


def labelled():
    hidden, items = tensors()
    return hidden[LABELS != IGNORE], items


def test_the_full_softmax_is_the_default_and_takes_nothing_from_the_random_state():
    hidden, items = tensors()
    torch.manual_seed(0)
    expected, before = full_softmax(hidden, items, LABELS), torch.get_rng_state()
    assert torch.equal(loss_of(), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_smoothing_and_slices_reach_the_softmax():
    hidden, items = tensors()
    expected = full_softmax(hidden, items, LABELS, 0.1)
    torch.testing.assert_close(loss_of(label_smoothing=0.1), expected)
    torch.testing.assert_close(loss_of(label_smoothing=0.1, max_logits=4), expected)


def test_in_batch_negatives_are_the_other_targets_with_their_popularity():
    """Counts plus one are 5, 2, 1, 3, 1 of 12; each of 4 targets is met by 3 others."""
    hidden, items = labelled()
    expected_counts = 3 * torch.tensor([5.0, 2, 1, 3, 1]) / 12
    logs = expected_counts.log()[TARGETS]
    for correction, arguments in {"negatives": (logs,), "none": (), "all": (logs, logs)}.items():
        expected = sampled_softmax(hidden, items, TARGETS, TARGETS, *arguments)
        found = loss_of(kind="sampled_softmax", negatives="in_batch", correction=correction)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_many_corrected_negatives_come_near_the_full_softmax(negatives):
    many = loss_of(kind="sampled_softmax", negatives=negatives, num_negatives=200_000)
    torch.testing.assert_close(many, loss_of(), rtol=0.01, atol=0)


def test_uncorrected_popular_negatives_do_not():
    many = loss_of(kind="sampled_softmax", negatives="popularity", num_negatives=200_000, correction="none")
    assert many > 2 * loss_of()


def test_gbce_is_bce_at_t_0_and_has_the_exponent_of_its_share_at_t_1():
    plain = loss_of(kind="bce", num_negatives=2)
    assert torch.equal(loss_of(kind="gbce", num_negatives=2, calibration=0.0), plain)
    calibrated = loss_of(kind="gbce", num_negatives=2, calibration=1.0)
    assert gbce_beta(2, 5, 1.0) == 0.5
    hidden, items = labelled()
    targets = (hidden * items[TARGETS]).sum(-1)
    torch.testing.assert_close(plain - calibrated, -(0.5 * torch.nn.functional.logsigmoid(targets) / 3).mean())


SAMPLED = [(kind, negatives) for kind in ("sampled_softmax", "bce") for negatives in ("uniform", "popularity")]


@pytest.mark.parametrize(("kind", "negatives"), SAMPLED)
def test_the_random_state_decides_the_draws(kind, negatives):
    fields = {"kind": kind, "negatives": negatives, "num_negatives": 3}
    assert torch.equal(loss_of(1, **fields), loss_of(1, **fields))
    assert not torch.equal(loss_of(1, **fields), loss_of(2, **fields))


@pytest.mark.parametrize(("kind", "negatives"), [*SAMPLED, ("sampled_softmax", "in_batch"), ("gbce", "uniform")])
def test_no_target_is_zero(kind, negatives):
    assert loss_of(kind=kind, negatives=negatives, labels=torch.full((2, 3), IGNORE)).item() == 0


def test_a_name_stands_for_the_objective():
    assert ObjectiveConfig.model_validate("bce") == ObjectiveConfig(kind="bce")


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="label_smoothing is for full_softmax, not for bce"):
        parse(ObjectiveConfig, {"kind": "bce", "label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="in_batch is for sampled_softmax"):
        parse(ObjectiveConfig, {"kind": "bce", "negatives": "in_batch"})
    with pytest.raises(ConfigError, match="gbce is calibrated for uniform negatives, not for popularity"):
        parse(ObjectiveConfig, {"kind": "gbce", "negatives": "popularity"})
