import numpy as np
import pytest
import torch
from tests.recommenders.test_scored import dataset

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.errors import ConfigError
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.tasks.windows import Windows
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig
from sidrec.training.isolation import isolated_rng
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


def test_only_training_targets_are_learnt_from():
    """The last items of a sequence are held out: their embeddings get no gradient but from the softmax."""
    data = cycle_dataset()
    examples = SASRecExamples(Windows.of(data.sequences, data.split.train, 50))
    batch = examples.collate(np.arange(len(examples)))
    assert int((batch["labels"] != IGNORE).sum()) == len(data.split.train)
    assert batch["input_ids"].shape[1] == data.sequences.lengths[0] - 3


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
