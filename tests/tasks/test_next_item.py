"""Prompts and examples, cell by cell, and what every training set must satisfy."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Histories, Sequences
from sidrec.tasks.next_item import ItemTokens, PrefixExamples, SequenceExamples
from sidrec.tasks.windows import Windows
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.objectives import IGNORE

# Four items of two levels; sizes (2, 3): codes 3-4 and 5-7.
VOCABULARY = CodeVocabulary((2, 3))
CODES = np.array([[0, 0], [0, 2], [1, 1], [1, 0]])
ITEMS = ItemTokens(VOCABULARY.tokens(CODES), pad=0, eos=1, bos=2)
# Tokens: item 0 = 3 5, item 1 = 3 7, item 2 = 4 6, item 3 = 4 5.
SEQUENCES = Sequences(np.array([0, 1, 2, 3, 3, 2, 1], np.int32), np.array([0, 4, 7]), ["u", "v"])


def pairs(*items: tuple[int, int]) -> Examples:
    return Examples(*(np.array(column, np.int32) for column in zip(*items, strict=True)))


def test_encoder_prompts():
    prompts = ITEMS.prompts(Histories.of([[0, 2], [], [3]]), end=True)
    assert prompts.tokens_BT.tolist() == [[3, 5, 4, 6, 1], [1, 0, 0, 0, 0], [4, 5, 1, 0, 0]]
    assert prompts.mask_BT.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_prompts_of_whole_items():
    whole = replace(ITEMS, whole=True)
    prompts = whole.prompts(Histories.of([[0, 2, 1], [], [3]]), max_items=2, end=True)
    assert prompts.tokens_BT.tolist() == [[[4, 6], [3, 7], [1, 0]], [[1, 0], [0, 0], [0, 0]], [[4, 5], [1, 0], [0, 0]]]
    assert prompts.mask_BT.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    begun = whole.prompts(Histories.of([[3], []]), begin=True)
    assert begun.tokens_BT.tolist() == [[[2, 0], [4, 5]], [[2, 0], [0, 0]]]


def test_prefix_examples_of_whole_items_write_codes():
    examples = PrefixExamples(SEQUENCES, pairs((0, 1), (0, 3)), replace(ITEMS, whole=True), max_items=2)
    assert examples.lengths.tolist() == [2, 3]
    batch = examples.collate(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [[[3, 5], [1, 0], [0, 0]], [[3, 7], [4, 6], [1, 0]]]
    assert batch["labels"].tolist() == [[3, 7, 1], [4, 5, 1]]


# Two user tokens behind the codes, 8 and 9.
KNOWN = replace(ITEMS, first_user=VOCABULARY.first_user, num_users=2)


def test_users_stand_before_the_items_where_they_are_known():
    histories = Histories(np.array([0, 2, 3], np.int32), np.array([0, 2, 2, 3]), np.array([4, 7, -1]))
    prompts = KNOWN.prompts(histories, end=True)
    assert prompts.tokens_BT.tolist() == [[8, 3, 5, 4, 6, 1], [9, 1, 0, 0, 0, 0], [4, 5, 1, 0, 0, 0]]
    assert prompts.mask_BT.sum(1).tolist() == [6, 2, 3]
    causal = KNOWN.prompts(histories, begin=True, max_items=1)
    assert causal.tokens_BT.tolist() == [[2, 8, 4, 6], [2, 9, 0, 0], [2, 4, 5, 0]]
    whole = replace(KNOWN, whole=True).prompts(histories.take(slice(0, 2)), end=True)
    assert whole.tokens_BT.tolist() == [[[8, 0], [3, 5], [4, 6], [1, 0]], [[9, 0], [1, 0], [0, 0], [0, 0]]]
    nobody = Histories.of([[0, 2], []])
    assert KNOWN.prompts(nobody, end=True).tokens_BT.tolist() == ITEMS.prompts(nobody, end=True).tokens_BT.tolist()
    assert ITEMS.prompts(histories, end=True).tokens_BT.tolist()[1] == [1, 0, 0, 0, 0], "users without tokens"


def test_examples_of_known_users_by_hand():
    tokens = {name: 8 + key % 2 for name, key in zip("uv", SEQUENCES.user_keys.tolist(), strict=True)}
    prefix = PrefixExamples(SEQUENCES, pairs((0, 1), (1, 2)), KNOWN, max_items=2)
    assert prefix.collate(np.array([0]))["input_ids"].tolist() == [[tokens["u"], 3, 5, 1]]
    assert prefix.lengths.tolist() == [4, 6]
    causal = sequence_examples(SEQUENCES, pairs((0, 1), (1, 1), (1, 2)), 5, KNOWN)
    batch = causal.collate(np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[2, tokens["v"], 4, 5, 4, 6, 3, 7], [2, tokens["u"], 3, 5, 3, 7, 0, 0]]
    ignored = [IGNORE] * 4
    assert batch["labels"].tolist() == [[*ignored, 4, 6, 3, 7], [*ignored, 3, 7, IGNORE, IGNORE]]
    assert causal.lengths.tolist() == [6, 8]


def test_causal_prompts():
    prompts = ITEMS.prompts(Histories.of([[0, 2], [], [3]]), begin=True)
    assert prompts.tokens_BT.tolist() == [[2, 3, 5, 4, 6], [2, 0, 0, 0, 0], [2, 4, 5, 0, 0]]
    assert prompts.mask_BT.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_prompts_keep_the_newest_items():
    prompts = ITEMS.prompts(Histories.of([[0, 1, 2, 3]]), max_items=2, begin=True, end=True)
    assert prompts.tokens_BT.tolist() == [[2, 4, 6, 4, 5, 1]]


def test_prompts_of_empty_histories_only():
    assert ITEMS.prompts(Histories.of([[], []]), begin=True).tokens_BT.tolist() == [[2], [2]]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=5),
    st.integers(0, 7),
    st.booleans(),
    st.booleans(),
)
def test_prompts_round_trip(histories, max_items, begin, end):
    prompts = ITEMS.prompts(Histories.of(histories), max_items=max_items, begin=begin, end=end)
    for tokens, mask, history in zip(prompts.tokens_BT, prompts.mask_BT, histories, strict=True):
        real = tokens[mask.bool()].tolist()
        assert (tokens[~mask.bool()] == 0).all()
        if begin:
            assert real.pop(0) == 2
        if end:
            assert real.pop() == 1
        codes = VOCABULARY.codes(np.array(real, dtype=np.int64).reshape(-1, 2))
        rows = [int(np.flatnonzero((code == CODES).all(1))[0]) for code in codes]
        assert rows == (history[-max_items:] if max_items else history)


def test_prefix_examples_by_hand():
    examples = PrefixExamples(SEQUENCES, pairs((0, 1), (0, 3), (1, 2)), ITEMS, max_items=2)
    assert len(examples) == 3
    assert examples.lengths.tolist() == [3, 5, 5]
    batch = examples.collate(np.array([2, 0, 1]))
    # user v before 2: items 3 2; user u before 1: item 0; user u before 3: items 1 2 (item 0 is cut off).
    assert batch["input_ids"].tolist() == [[4, 5, 4, 6, 1], [3, 5, 1, 0, 0], [3, 7, 4, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    # targets: v[2] = item 1, u[1] = item 1, u[3] = item 3.
    assert batch["labels"].tolist() == [[3, 7, 1], [3, 7, 1], [4, 5, 1]]
    assert batch["decoder_input_ids"].tolist() == [[0, 3, 7], [0, 3, 7], [0, 4, 5]]


def sequence_examples(sequences, targets: Examples, max_items: int, items: ItemTokens = ITEMS) -> SequenceExamples:
    return SequenceExamples(Windows.of(sequences, targets, max_items), items)


def test_sequence_examples_by_hand():
    examples = sequence_examples(SEQUENCES, pairs((0, 1), (0, 2), (1, 1)), max_items=5)
    assert examples.lengths.tolist() == [7, 5]
    batch = examples.collate(np.array([0, 1]))
    # User u: items 0 1 2, of which 1 and 2 are learnt; item 3, after the last target, is not read.
    assert batch["input_ids"].tolist() == [[2, 3, 5, 3, 7, 4, 6], [2, 4, 5, 4, 6, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 1, 0, 0]]
    ignored = IGNORE
    assert batch["labels"].tolist() == [
        [ignored, ignored, ignored, 3, 7, 4, 6],
        [ignored, ignored, ignored, 4, 6, ignored, ignored],
    ]


def learnt_targets(examples: SequenceExamples) -> Counter[tuple[int, ...]]:
    """(event, its tokens) for every labelled position of every window."""
    found: Counter[int] = Counter()
    for position in range(len(examples)):
        batch = examples.collate(np.array([position]))
        labels = batch["labels"][0, 1:].reshape(-1, 2)
        for place, label in enumerate(labels.tolist()):
            event = int(examples.windows.starts[position]) + place
            if label == [IGNORE, IGNORE]:
                continue
            assert label == ITEMS.table_NL[examples.windows.rows[event]].tolist()
            found[event] += 1
    return found


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_target_is_learnt_exactly_once_with_context(data):
    lengths = data.draw(st.lists(st.integers(1, 17), min_size=1, max_size=4))
    max_items = data.draw(st.integers(0, 6))
    offsets = np.cumsum([0, *lengths])
    rows = np.array(data.draw(st.lists(st.integers(0, 3), min_size=sum(lengths), max_size=sum(lengths))), np.int32)
    targets = [
        (user, cut) for user, length in enumerate(lengths) for cut in range(1, length) if data.draw(st.booleans())
    ]
    if not targets:
        return
    sequences = Sequences(rows, offsets, [str(user) for user in range(len(lengths))])
    examples = sequence_examples(sequences, pairs(*targets), max_items)
    expected = Counter({int(offsets[user]) + cut: 1 for user, cut in targets})
    assert learnt_targets(examples) == expected


@pytest.mark.parametrize("max_items", [3, 50])
def test_targets_are_those_of_the_training_split(max_items):
    dataset = cycle_dataset(num_items=16, num_users=10)
    ids = grid_semantic_ids(dataset.catalog, size=4, levels=2)
    items = ItemTokens(CodeVocabulary(ids.sizes).tokens(ids.codes), pad=0, eos=1, bos=2)
    examples = sequence_examples(dataset.sequences, dataset.split.train, max_items, items)
    train = dataset.split.train
    expected = sorted((dataset.sequences.offsets[train.users] + train.cuts).tolist())
    labels = examples.collate(np.arange(len(examples)))["labels"]
    assert int((labels != IGNORE).sum()) == len(expected) * 2
    assert np.flatnonzero(examples.windows.is_target).tolist() == expected
