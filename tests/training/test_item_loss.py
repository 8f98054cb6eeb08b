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


def loss_of(seed=0, labels=LABELS, target_counts=None, **fields):
    hidden, items = tensors()
    torch.manual_seed(seed)
    return item_loss(ObjectiveConfig(**fields), hidden, items, labels, COUNTS.log1p(), target_counts)


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


TARGET_COUNTS = torch.tensor([3.0, 5, 0, 4, 0])


@pytest.mark.parametrize(
    ("counts", "shares"),
    [(TARGET_COUNTS, TARGET_COUNTS / 12), (None, torch.tensor([1.0, 1, 0, 2, 0]) / 4)],
    ids=["of training", "of the batch"],
)
def test_in_batch_negatives_are_the_other_targets_with_their_share_of_targets(counts, shares):
    """Each of 4 targets is met by 3 others; whatever else is known of the items does not matter."""
    hidden, items = labelled()
    logs = (3 * shares).log()[TARGETS]
    for correction, arguments in {"negatives": (logs,), "none": (), "all": (logs, logs)}.items():
        expected = sampled_softmax(hidden, items, TARGETS, TARGETS, *arguments)
        fields = {"kind": "sampled_softmax", "negatives": "in_batch", "correction": correction}
        torch.testing.assert_close(loss_of(target_counts=counts, **fields), expected)


def test_many_in_batch_negatives_come_near_the_full_softmax():
    """Most items are rare, as in real data: one more event each would double their correction."""
    torch.manual_seed(0)
    target_counts = torch.ones(200)
    target_counts[:20] = torch.arange(20, 0, -1.0)
    shares = target_counts / target_counts.sum()
    labels = torch.multinomial(shares, 3_000, replacement=True)[None]
    hidden, items = torch.randn(1, 3_000, 4), torch.randn(200, 4)
    # What is popular is not what is a target: all events but the first of a history are targets.
    popularity = torch.full((200,), 3.0).log1p()
    full = item_loss(ObjectiveConfig(), hidden, items, labels, popularity)
    in_batch = ObjectiveConfig(kind="sampled_softmax", negatives="in_batch")
    many = item_loss(in_batch, hidden, items, labels, popularity, target_counts)
    torch.testing.assert_close(many, full, rtol=0.01, atol=0)


def test_a_label_that_training_never_had_gives_a_number():
    counts = torch.tensor([3.0, 5, 0, 0, 0])
    assert loss_of(kind="sampled_softmax", negatives="in_batch", target_counts=counts).isfinite()


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


@pytest.mark.parametrize(
    ("kind", "field", "value", "readers"),
    [
        ("full_softmax", "negatives", "popularity", "sampled_softmax or bce or gbce"),
        ("full_softmax", "num_negatives", 7, "sampled_softmax or bce or gbce"),
        ("full_softmax", "correction", "all", "sampled_softmax"),
        ("full_softmax", "calibration", 0.5, "gbce"),
        ("sampled_softmax", "max_logits", 5, "full_softmax"),
        ("bce", "correction", "none", "sampled_softmax"),
        ("bce", "calibration", 0.1, "gbce"),
        ("gbce", "max_logits", 5, "full_softmax"),
    ],
)
def test_settings_that_an_objective_does_not_read_are_refused(kind, field, value, readers):
    with pytest.raises(ConfigError, match=f"{field} is for kind {readers}, not for {kind}\n"):
        parse(ObjectiveConfig, {"kind": kind, field: value})
    default = ObjectiveConfig.model_fields[field].default
    assert parse(ObjectiveConfig, {"kind": kind, field: default}) == ObjectiveConfig(kind=kind)


def test_in_batch_takes_all_there_are():
    with pytest.raises(ConfigError, match="num_negatives is for negatives uniform or popularity, not for in_batch"):
        parse(ObjectiveConfig, {"kind": "sampled_softmax", "negatives": "in_batch", "num_negatives": 4})


@pytest.mark.parametrize("kind", ["full_softmax", "sampled_softmax", "bce", "gbce"])
def test_saved_settings_hold_all_fields_and_are_read(kind):
    config = ObjectiveConfig(kind=kind)
    assert parse(ObjectiveConfig, config.model_dump(mode="json")) == config


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="label_smoothing is for kind full_softmax, not for bce"):
        parse(ObjectiveConfig, {"kind": "bce", "label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="in_batch is for sampled_softmax"):
        parse(ObjectiveConfig, {"kind": "bce", "negatives": "in_batch"})
    with pytest.raises(ConfigError, match="gbce is calibrated for uniform negatives, not for popularity"):
        parse(ObjectiveConfig, {"kind": "gbce", "negatives": "popularity"})
