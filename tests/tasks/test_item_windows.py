"""Windows of items: what is read, where targets stand, and what thinning leaves."""

import numpy as np
import pytest
import torch

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Sequences
from sidrec.recommenders.item_decoder import ItemDecoder
from sidrec.tasks.augmentation import Augmentation
from sidrec.tasks.item_windows import ItemWindowExamples
from sidrec.tasks.next_item import ItemTokens
from sidrec.tasks.windows import Windows
from sidrec.testing.toy import cycle_dataset, random_semantic_ids
from sidrec.training.batches import num_targets, padding_of

CODES = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
ITEMS = ItemTokens(CODES + np.array([3, 5]), pad=0, eos=1, bos=2, whole=True, own_N=np.arange(7, 11))
SEQUENCES = Sequences(np.array([0, 1, 2, 3, 2, 0], np.int32), np.array([0, 4, 6]), ["a", "b"])


def examples(max_items: int = 5, **fields) -> ItemWindowExamples:
    """All events but the first of both users are targets, except user a's third."""
    targets = Examples(np.array([0, 0, 1], np.int32), np.array([1, 3, 1], np.int32))
    return ItemWindowExamples(Windows.of(SEQUENCES, targets, max_items), ITEMS, codes_NL=CODES, **fields)


def test_by_hand():
    batch = examples().collate(np.array([0, 1]))
    begin, nothing = [2, 0, 0], [0, 0, 0]
    assert batch["input_ids"].tolist() == [
        [begin, [3, 6, 7], [4, 5, 8], [4, 6, 9]],
        [begin, [4, 6, 9], nothing, nothing],
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["places"].tolist() == [1, 3, 5], "behind item 0, behind item 2, and in the second row behind item 2"
    assert batch["codes"].tolist() == batch["labels"].tolist() == [[1, 0], [0, 0], [0, 1]]
    assert (int(num_targets(batch)), padding_of(batch)) == (6, (2, 8))
    assert examples().lengths.tolist() == [4, 2]


def test_a_user_token_moves_the_targets():
    named = ItemTokens(ITEMS.table_NL, 0, 1, 2, whole=True, first_user=11, num_users=4, own_N=ITEMS.own_N)
    plain, users = examples(), ItemWindowExamples(examples().windows, named, codes_NL=CODES)
    moved, still = users.collate(np.array([0, 1])), plain.collate(np.array([0, 1]))
    assert users.lengths.tolist() == [5, 3]
    assert moved["places"].tolist() == [2, 4, 7]
    assert (moved["input_ids"][:, 1, 0] >= 11).all()
    assert moved["input_ids"][:, 2:].tolist() == still["input_ids"][:, 1:].tolist()


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(history_dropout=0.4, subsequences=True)])
def test_every_target_stands_behind_the_item_before_it(augmentation):
    dataset = cycle_dataset(num_items=30, num_users=40)
    recommender = ItemDecoder(max_history=4)
    recommender.catalog = dataset.catalog
    recommender.semantic_ids = random_semantic_ids(dataset.catalog, (30, 2))
    whole = recommender.examples(dataset, dataset.split.train)
    assert isinstance(whole, ItemWindowExamples)
    thinned = ItemWindowExamples(whole.windows, whole.items, augmentation, codes_NL=whole.codes_NL).in_epoch(1, 2)
    batch = thinned.collate(np.arange(len(thinned)))
    first_item = recommender.vocabulary.first_item
    read_PW = batch["input_ids"].flatten(0, 1)
    read = read_PW[batch["places"], -1] - first_item
    learnt = batch["codes"].tolist()
    if augmentation.is_on:
        assert 0 < len(learnt) < len(dataset.split.train)
    else:
        assert len(learnt) == len(dataset.split.train)
        followers = (read + 1) % 30
        assert learnt == recommender.semantic_ids.codes[followers].tolist()
    assert (read >= 0).all(), "behind an item, never behind the begin token"
    # What is learnt behind an item is what is read next. Rows begin with the begin token, which no item is, and the one
    # behind the last row is put there.
    goes_on = torch.cat([read_PW, read_PW[:1]])[batch["places"] + 1, -1] >= first_item
    assert goes_on.any()
    following = read_PW[batch["places"][goes_on] + 1, -1] - first_item
    assert batch["codes"][goes_on].tolist() == recommender.semantic_ids.codes[following].tolist()
    assert thinned.lengths.tolist() == batch["attention_mask"].sum(1).tolist()
