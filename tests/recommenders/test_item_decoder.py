"""The item decoder's network: what a position sees, what codes see, and its loss against a slow loop."""

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import RAGGED, RUN, make

from sidrec.decoding.recommendations import Request
from sidrec.errors import ConfigError
from sidrec.recommenders.item_decoder import ItemDecoder
from sidrec.testing.toy import cycle_dataset
from sidrec.training.batch_loss import LevelLoss

KINDS = ("item-decoder", "item-decoder, codes alone, users")


def batch_of(recommender):
    dataset = cycle_dataset(num_items=60)
    return recommender.examples(dataset, dataset.split.train).collate(np.arange(5))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_equals_a_loop_over_targets_and_levels(kind):
    recommender = make(kind, temperature=0.6, label_smoothing=0.2)
    batch, model = batch_of(recommender), recommender.model
    total, count = 0.0, 0
    with torch.no_grad():
        for place, codes in zip(batch["places"].tolist(), batch["codes"], strict=True):
            row, column = divmod(place, batch["input_ids"].shape[1])
            # Only what the place may see.
            seen = batch["input_ids"][row : row + 1, : column + 1]
            for level, code in enumerate(codes.tolist()):
                later = codes.clone()
                later[level:] = 0
                logits = model(seen, torch.tensor([column]), later[None]).logits[level][0] / 0.6
                logp = logits.log_softmax(-1)
                total -= float(0.8 * logp[code] + 0.2 * logp.mean())
                count += 1
    assert recommender.loss == LevelLoss(0.6, 0.2)
    assert recommender.loss(model, batch).item() == pytest.approx(total / count, rel=1e-5)


def test_an_item_is_read_by_its_codes_and_its_own_vector():
    recommender = make("item-decoder")
    model = recommender.model
    prompt = recommender.prompts(RAGGED.take(np.array([2])))
    assert prompt.tokens_BT.tolist() == [
        [
            [2, 0, 0, 0],
            [*recommender.vocabulary.tokens(recommender.ids.codes[5]), recommender.vocabulary.first_item + 5],
        ]
    ]
    with torch.no_grad():
        before = recommender.score_items(RAGGED, np.arange(60)[None].repeat(5, 0), RUN)
        model.tokens.weight[recommender.vocabulary.first_item + 5].normal_()
        after = recommender.score_items(RAGGED, np.arange(60)[None].repeat(5, 0), RUN)
    changed = np.abs(after - before).max(axis=1) > 1e-4
    assert changed.tolist() == [False, False, True, False, False], "only the third history holds item 5"


def test_padding_learns_nothing_and_adds_nothing():
    recommender = make("item-decoder", num_items=60)
    batch = batch_of(recommender)
    recommender.loss(recommender.model, batch).backward()
    gradient = recommender.model.tokens.weight.grad
    assert gradient[recommender.vocabulary.PAD].abs().max() == 0
    assert gradient[recommender.vocabulary.BOS].abs().max() > 0


def test_a_batch_without_targets_has_no_loss():
    recommender = make("item-decoder")
    batch = batch_of(recommender)
    for name in ("places", "codes", "labels"):
        batch[name] = batch[name][:0]
    loss = recommender.loss(recommender.model, batch)
    loss.backward()
    assert loss.item() == 0


def test_search_over_the_vocabulary_is_search_over_levels():
    lists = [make("item-decoder", normalize).rank(RAGGED, Request(k=5), RUN) for normalize in ("level", "vocabulary")]
    assert np.array_equal(lists[0].scores, lists[1].scores)


def test_heads_divide_the_width():
    with pytest.raises(ConfigError, match="d_model 10 is not a multiple of num_heads 4"):
        ItemDecoder(d_model=10)
