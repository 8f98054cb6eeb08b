"""Checkpoints in the scratch folder of a run: whole or absent, and only used for the run that wrote them.

Leaves out what is in them: the borrowed trainer writes weights, optimizer, schedule and random states.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sidrec.artifact import digest_of
from sidrec.config import RunSettings
from sidrec.training.batches import TrainingExamples
from sidrec.training.config import TrainingConfig

__all__ = ["find_checkpoint", "keep_only", "start_digest"]

START = "start.json"


def start_digest(model: nn.Module, examples: TrainingExamples, training: TrainingConfig, run: RunSettings) -> str:
    """Hash of everything that decides a training run: first weights, examples, settings, seed."""
    few = examples.collate(np.arange(min(len(examples), 64)))
    tensors = {**{f"weight {name}": value for name, value in model.state_dict().items()}, **few}
    digests = {name: _tensor_digest(value) for name, value in tensors.items()}
    lengths = hashlib.sha256(np.ascontiguousarray(examples.lengths).tobytes()).hexdigest()
    return digest_of([digests, lengths, training.model_dump(mode="json"), run.seed])


def _tensor_digest(value: Tensor) -> str:
    raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()


def find_checkpoint(folder: Path, digest: str) -> Path | None:
    """The newest checkpoint of the very same run; what another run left in the folder is removed."""
    start = folder / START
    if not start.is_file() or json.loads(start.read_text(encoding="utf-8")) != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start.write_text(json.dumps(digest), encoding="utf-8")
        return None
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def keep_only(checkpoint: Path) -> None:
    """Remove the other checkpoints beside this one."""
    for path in checkpoint.parent.glob("checkpoint-*"):
        if path != checkpoint:
            shutil.rmtree(path, ignore_errors=True)
