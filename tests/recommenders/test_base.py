"""What all recommenders share: weights are written, or it is said that they were not."""

from pathlib import Path

import pytest
import torch.distributed as dist
from tests.recommenders.test_scored import dataset
from torch.testing._internal.distributed.fake_pg import FakeStore

from sidrec.config import RunSettings
from sidrec.errors import ArtifactError
from sidrec.recommenders.popularity import Popularity
from sidrec.training.config import TrainingConfig


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_writes_no_weights_says_so(tmp_path: Path, rank: int) -> None:
    """Of a distributed run, transformers writes them in the first process alone."""
    popularity = Popularity()
    popularity.fit(dataset([[0, 1, 2]], ["a"], [(0, 1)]), TrainingConfig(), RunSettings(device="cpu"))
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)
    try:
        if rank:
            with pytest.raises(ArtifactError, match="no weights were written"):
                popularity.save(tmp_path)
        else:
            popularity.save(tmp_path)
    finally:
        dist.destroy_process_group()
    assert (tmp_path / "model.safetensors").is_file() is (rank == 0)
