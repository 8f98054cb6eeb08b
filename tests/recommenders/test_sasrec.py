from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.recommenders.test_scored import dataset
from torch.nn import functional as F

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.tasks.windows import Windows
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig
from sidrec.training.isolation import isolated_rng
from sidrec.training.item_loss import item_loss
from sidrec.training.objectives import IGNORE

RUN = RunSettings(device="cpu")


def test_inputs_are_labelled_with_the_event_after_them():
    # Targets are events 1 and 3 of the first user, event 1 of the second, of which no more is read.
    data = dataset([[5, 6, 7, 8], [1, 2, 3]], ["a", "b"], [(0, 1), (0, 3), (1, 1)])
    examples = SASRecExamples(Windows.of(data.sequences, data.split.train, max_items=3))
    assert examples.lengths.tolist() == [3, 1]
    batch = examples.collate(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[True, True, True], [True, False, False]]
    assert batch["labels"].tolist() == [[6, IGNORE, 8], [2, IGNORE, IGNORE]]


def small_model():
    with isolated_rng(0):
        return SASRecModel(SASRecModelConfig(num_items=11, hidden_size=8, dropout=0.0, max_history=6)).eval()


def test_a_position_sees_nothing_after_it():
    model = small_model()
    one = torch.tensor([[3, 1, 4, 1, 5]])
    other = torch.tensor([[3, 1, 4, 9, 2]])
    with torch.no_grad():
        first, second = model(one).hidden, model(other).hidden
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


def test_loss_is_the_mean_over_labels_of_the_full_softmax():
    model = small_model()
    ids, labels = torch.tensor([[3, 1, 4], [5, 9, 0]]), torch.tensor([[1, IGNORE, 2], [9, IGNORE, IGNORE]])
    with torch.no_grad():
        out = model(ids, labels=labels)
        logits = (out.hidden @ model.items.weight.T).log_softmax(-1)
    expected = -(logits[0, 0, 1] + logits[0, 2, 2] + logits[1, 0, 9]) / 3
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_training_target_is_a_label_once():
    data = cycle_dataset()
    examples = SASRecExamples(Windows.of(data.sequences, data.split.train, 50))
    batch = examples.collate(np.arange(len(examples)))
    assert int((batch["labels"] != IGNORE).sum()) == len(data.split.train)
    assert batch["input_ids"].shape[1] == data.sequences.lengths[0] - 3


def with_other_held_out_items(data):
    """The same dataset, but for the last two events of every user, which are the targets of validation and test."""
    rows = data.sequences.rows.copy().reshape(len(data.sequences), -1)
    rows[:, -2:] = np.arange(len(rows))[:, None] % 3
    return replace(data, sequences=replace(data.sequences, rows=rows.reshape(-1)))


IN_BATCH = {"kind": "sampled_softmax", "negatives": "in_batch"}
POPULAR = {"kind": "sampled_softmax", "negatives": "popularity", "num_negatives": 16}


@pytest.mark.parametrize("objective", [{}, POPULAR, IN_BATCH], ids=["full", "popularity", "in batch"])
@pytest.mark.parametrize("table", [None, {"frozen_first": {"max_steps": 2}}], ids=["random", "vectors"])
def test_only_training_targets_are_learnt_from(objective, table):
    """Whatever the held-out events are: the same weights, popularity, draws and rows of items without a vector."""
    data = cycle_dataset(num_items=12, num_users=24, length=6)
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    given = ItemEmbeddings(vectors, "by hand", data.catalog.digest, np.arange(0, 12, 3))
    states = []
    for each in (data, with_other_held_out_items(data)):
        sasrec = SASRec(hidden_size=8, num_layers=1, objective=objective, table=table)
        sasrec.fit(each, TrainingConfig(max_steps=3, batch_size=8), RUN, item_embeddings=given)
        states.append(sasrec.model.state_dict())
    assert ("target_counts" in states[0]) == (objective is IN_BATCH)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_in_batch_negatives_are_corrected_by_training_targets():
    """The first item of a history is an event and no target."""
    data = dataset([[0, 1, 2], [2, 1, 0], [0, 3, 0]], ["a", "b", "c"], [(0, 1), (1, 1), (2, 1)])
    sasrec = SASRec(hidden_size=8, objective=IN_BATCH)
    sasrec.fit(data, TrainingConfig(max_steps=1), RUN)
    assert sasrec.model.target_counts[:4].tolist() == [0, 2, 0, 1]
    batch = {"input_ids": torch.tensor([[0, 1, 2]]), "labels": torch.tensor([[1, 3, 1]])}
    with torch.no_grad():
        found = sasrec.model(**batch)
    counts, popularity = torch.tensor([0.0, 2, 0, 1]), sasrec.model.popularity
    counts = F.pad(counts, (0, len(data.catalog) - 4))
    expected = item_loss(
        sasrec.model.objective, found.hidden, sasrec.model.output_table, batch["labels"], popularity, counts
    )
    torch.testing.assert_close(found.loss, expected)


def test_long_histories_are_cut_and_short_ones_are_not_padded_wrongly():
    sasrec = SASRec(hidden_size=8, max_history=6)
    data = cycle_dataset(num_items=11)
    sasrec.fit(data, TrainingConfig(max_steps=3, batch_size=16), RUN)
    long = [*range(11), *range(5)]
    request = Request(k=11, exclude_seen=False)
    found = sasrec.rank(Histories.of([long, long[-6:], [3], long[-2:]]), request, RUN)
    assert found.rows[0].tolist() == found.rows[1].tolist()
    with torch.no_grad():
        hidden = sasrec.model(torch.tensor([[3]])).hidden[0, 0]
    scores = sasrec.model.items.weight.detach() @ hidden
    np.testing.assert_allclose(found.scores[2], np.sort(scores.numpy())[::-1], rtol=1e-4, atol=1e-6)


def test_an_empty_history_gets_popular_items():
    data = dataset([[0, 1, 2], [2, 1, 0], [3, 1, 0]], ["a", "b", "c"], [(0, 1), (1, 1), (2, 1)])
    sasrec = SASRec(hidden_size=8)
    sasrec.fit(data, TrainingConfig(max_steps=1), RUN)
    assert sasrec.rank(Histories.of([[]]), Request(k=1), RUN).rows.tolist() == [[1]]


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(ConfigError, match="hidden_size 9 is not a multiple of num_heads 2"):
        SASRec(hidden_size=9)


def test_weights_are_a_hugging_face_directory(tmp_path):
    model = small_model()
    model.popularity[3] = 2.0
    model.save_pretrained(tmp_path)
    loaded = SASRecModel.from_pretrained(tmp_path)
    assert loaded.config.num_items == 11
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
