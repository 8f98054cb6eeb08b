"""What is kept of a training: tied weights once, in memory and in files."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.training.test_averaging import One
from tests.training.test_trainer import weights

from sidrec.training.record import KeptState, TrainRecord


def test_tied_weights_are_held_once(tmp_path: Path) -> None:
    model = One(3.0)
    record = TrainRecord(kept=[KeptState.of(4, 0.5, model)])
    model.set(1.0)
    record.save(tmp_path)
    assert list(load_file(tmp_path / "kept-4.safetensors")) == ["count", "first"]
    for found in (record, TrainRecord.load(tmp_path)):
        kept = found.kept[0].weights
        assert kept["first"].data_ptr() == kept["second"].data_ptr()
        assert {name: value.item() for name, value in kept.items()} == {"first": 3.0, "second": 3.0, "count": 7.0}


def test_views_that_differ_are_not_tied(tmp_path: Path) -> None:
    """The transpose of a square weight lies in the same place."""
    model = torch.nn.Module()
    model.register_buffer("one", torch.arange(4.0).reshape(2, 2))
    model.register_buffer("other", model.one.T)
    before = weights(model).clone()
    TrainRecord(kept=[KeptState.of(1, 0.5, model)]).save(tmp_path)
    kept = TrainRecord.load(tmp_path).kept[0].weights
    assert torch.equal(torch.cat([kept["one"].flatten(), kept["other"].flatten()]), before)


def test_a_file_that_holds_every_name_is_read_too(tmp_path: Path) -> None:
    model = One(3.0)
    TrainRecord(kept=[KeptState.of(4, 0.5, model)]).save(tmp_path)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "kept-4.safetensors")
    assert set(TrainRecord.load(tmp_path).kept[0].weights) == {"first", "second", "count"}
