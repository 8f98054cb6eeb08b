"""Log-probabilities of items: the same inputs and scores as ranking, with gradients."""

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import RAGGED, RUN, VARIANTS, Reference, make

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.errors import DataError
from sidrec.recommenders import sasrec as sasrec_module
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.sasrec import SASRec
from sidrec.tasks.next_item import Prompts
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig

NORMALIZE = ("vocabulary", "level", "children")


def all_rows(recommender, histories):
    return np.tile(np.arange(len(recommender.catalog)), (len(histories), 1))


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("normalize", ["vocabulary", "level"])
def test_equals_whole_forward_passes_of_the_model_one_by_one(kind, normalize):
    recommender = make(kind, normalize, num_items=45, sizes=(3, 2, 4))
    slow = Reference(recommender)
    expected = np.array([slow.item_scores(RAGGED[user].tolist()) for user in range(len(RAGGED))])
    found = recommender.log_probs(RAGGED, all_rows(recommender, RAGGED))
    assert np.allclose(found.detach().numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_equals_the_scores_of_the_beam_search(kind, normalize):
    recommender = make(kind, normalize)
    found = recommender.rank(RAGGED, Request(k=12, exclude_seen=False, exact=True), RUN)
    logps = recommender.log_probs(RAGGED, found.rows).detach().numpy()
    assert np.allclose(logps, found.scores, atol=5e-5)
    everything = recommender.log_probs(RAGGED, all_rows(recommender, RAGGED)).detach().numpy()
    assert np.allclose(everything.max(axis=1), found.scores[:, 0], atol=5e-5)


@pytest.mark.parametrize("kind", VARIANTS)
def test_paths_of_children_are_a_distribution(kind):
    """Normalised over the children, the probabilities of all different paths sum to 1."""
    recommender = make(kind, "children")
    paths, first = np.unique(recommender.ids.codes, axis=0, return_index=True)
    logps = recommender.log_probs(RAGGED, np.tile(first, (len(RAGGED), 1)))
    assert len(paths) > 20
    assert torch.allclose(logps.exp().sum(-1), torch.ones(len(RAGGED)), atol=1e-5)


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_gradients_reach_every_weight(kind, normalize):
    recommender = make(kind, normalize)
    rows = np.random.default_rng(0).integers(60, size=(len(RAGGED), 3))
    recommender.log_probs(RAGGED, rows).sum().backward()
    # Codes that nothing reads or writes have no gradient of their own; every matrix as a whole has one.
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in recommender.model.parameters())


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_side_of_the_padding_does_not_matter(kind, monkeypatch):
    recommender = make(kind)
    right = recommender.log_probs(RAGGED, all_rows(recommender, RAGGED))
    build = recommender.prompts

    def padded_on_the_left(histories):
        prompts = build(histories)
        shift = (prompts.mask_BT == 0).sum(1)
        width = prompts.mask_BT.shape[1]
        index = torch.arange(len(shift))[:, None], (torch.arange(width) - shift[:, None]) % width
        return Prompts(prompts.tokens_BT[index], prompts.mask_BT[index])

    monkeypatch.setattr(recommender, "prompts", padded_on_the_left)
    left = recommender.log_probs(RAGGED, all_rows(recommender, RAGGED))
    assert torch.allclose(left, right, atol=2e-5)


@pytest.fixture(scope="module")
def sasrec():
    recommender = SASRec(hidden_size=16, num_layers=1, dropout=0.3, max_history=4)
    recommender.fit(cycle_dataset(), TrainingConfig(max_epochs=6, batch_size=32), RUN)
    return recommender


LONG = Histories.of([[3, 7, 11, 2, 9, 10], [5], []])


def test_sasrec_is_the_log_softmax_of_its_scores(sasrec):
    found = sasrec.rank(LONG, Request(k=24, exclude_seen=False), RUN)
    logits = np.zeros((3, 24), np.float32)
    np.put_along_axis(logits, found.rows, found.scores, axis=1)
    expected = torch.from_numpy(logits).log_softmax(-1)
    assert torch.allclose(sasrec.log_probs(LONG, all_rows(sasrec, LONG)), expected, atol=1e-5)
    rows = np.array([[4, 9], [0, 23], [7, 7]])
    assert torch.allclose(sasrec.log_probs(LONG, rows), expected.gather(1, torch.from_numpy(rows)), atol=1e-5)


def gradients(recommender, logps):
    weights = [weight for weight in recommender.model.parameters() if weight.requires_grad]
    return torch.autograd.grad((logps * torch.arange(1.0, 4.0)).sum(), weights)


@pytest.mark.parametrize("max_logits", [1, 3 * 5, 3 * 24])
def test_sasrec_holds_few_logits_and_has_the_same_values_and_gradients(sasrec, monkeypatch, max_logits):
    monkeypatch.setattr(sasrec_module, "MAX_LOGITS", max_logits)
    rows = np.array([[4, 9, 4], [0, 23, 1], [7, 7, 2]])
    logits = sasrec.model.scores(torch.tensor([[11, 2, 9, 10], [5, 0, 0, 0], [0] * 4]), torch.tensor([4, 1, 0]))
    plain = logits.log_softmax(-1).gather(1, torch.from_numpy(rows))
    sizes, product = [], torch.Tensor.__matmul__

    def watched(one, two):
        found = product(one, two)
        sizes.append(found.numel() if found.shape[-1] != 16 else 0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", watched)
        found = sasrec.log_probs(LONG, rows)
    assert 0 < max(sizes) <= max(max_logits, 3), "one item of each user is the least"
    torch.testing.assert_close(found, plain)
    for one, other in zip(gradients(sasrec, found), gradients(sasrec, plain), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_ranked_first_is_likeliest(sasrec):
    first = sasrec.rank(LONG, Request(k=1, exclude_seen=False), RUN).rows[:, 0]
    assert (sasrec.log_probs(LONG, all_rows(sasrec, LONG)).argmax(-1).numpy() == first)[:2].all()


def test_sasrec_reads_the_newest_items_only(sasrec):
    rows = np.array([[1, 2]])
    whole, newest = Histories.of([[3, 7, 11, 2, 9, 10]]), Histories.of([[11, 2, 9, 10]])
    assert torch.equal(sasrec.log_probs(whole, rows), sasrec.log_probs(newest, rows))


def test_dropout_only_in_training_mode(sasrec):
    rows = all_rows(sasrec, LONG)
    plain = sasrec.log_probs(LONG, rows)
    assert torch.equal(plain, sasrec.log_probs(LONG, rows))
    sasrec.model.train()
    dropped = sasrec.log_probs(LONG, rows)
    sasrec.model.eval()
    assert not torch.allclose(plain[:2], dropped[:2])


def test_counting_and_unfitted_recommenders_say_so():
    popularity = Popularity()
    popularity.fit(cycle_dataset(), TrainingConfig(), RUN)
    with pytest.raises(DataError, match=r"'popularity' gives no log-probabilities[\s\S]*such as 'sasrec'"):
        popularity.log_probs(LONG, np.zeros((3, 1), int))
    with pytest.raises(DataError, match="never fitted"):
        SASRec().log_probs(LONG, np.zeros((3, 1), int))


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_scores_of_items_are_log_probabilities(kind, normalize):
    recommender = make(kind, normalize)
    rows = np.random.default_rng(1).integers(60, size=(len(RAGGED), 9))
    expected = recommender.log_probs(RAGGED, rows).detach().numpy()
    assert np.allclose(recommender.score_items(RAGGED, rows, RUN), expected, atol=5e-5)
    alone = recommender.score_items(RAGGED.take(slice(3, 4)), rows[3:4], RUN)
    assert np.allclose(alone, expected[3:4], atol=5e-5)
    assert recommender.score_items(RAGGED.take(slice(0, 0)), rows[:0], RUN).shape == (0, 9)


def test_scores_of_sasrec_are_without_dropout_in_any_batch(sasrec, monkeypatch):
    rows = all_rows(sasrec, LONG)
    expected = sasrec.log_probs(LONG, rows).detach().numpy()
    sasrec.model.train()
    found = sasrec.score_items(LONG, rows, RUN)
    assert sasrec.model.training
    sasrec.model.eval()
    assert np.allclose(found, expected, atol=1e-6)
    monkeypatch.setattr("sidrec.recommenders.base.SCORES_AT_ONCE", 24)
    assert np.allclose(sasrec.score_items(LONG, rows, RUN), expected, atol=1e-5)
