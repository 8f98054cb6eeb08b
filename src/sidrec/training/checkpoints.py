"""Checkpoints in the scratch folder of a run: whole or absent, and only used for the run that wrote them.

Leaves out what is in them: the borrowed trainer writes weights, optimizer, schedule and random states.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidrec.artifact import digest_of
from sidrec.atomic import commit
from sidrec.config import Config, RunSettings
from sidrec.training.freezing import FrozenRows

__all__ = ["find_checkpoint", "keep_only", "start_digest"]

START = "start.json"


def start_digest(
    model: nn.Module,
    examples: Any,
    training: Config,
    run: RunSettings,
    frozen: Sequence[FrozenRows] = (),
    loss: object | None = None,
    processes: int = 1,
) -> str:
    """Hash of what decides a training: first weights, their config, examples (or vectors), settings, seed, frozen rows.

    So do the loss, if one is given (a dataclass, which counts by its fields), and the number of processes that share
    every step, each of which has a random state of its own.
    """
    config = model.config.to_dict() if isinstance(model, PreTrainedModel) else None
    parts = [model.state_dict(), config, examples, training.model_dump(mode="json"), run.seed]
    parts += [table.rows_N for table in frozen]
    parts += [] if loss is None else [loss]
    parts += [] if processes == 1 else [processes]
    return digest_of([_contents(part) for part in parts])


def _contents(value: Any) -> Any:
    """What an object is made of, for hashing: dataclasses by their fields, arrays and tensors by their bytes.

    >>> _contents({"rows": np.arange(2)}) == _contents({"rows": np.arange(2)})
    True
    >>> _contents(np.arange(2)) == _contents(np.arange(2, dtype=np.int32))
    False
    """
    if isinstance(value, Tensor):
        # Bytes, because numpy has no bfloat16.
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return [str(data.dtype), list(data.shape), hashlib.sha256(data.data).hexdigest()]
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_contents(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _contents(part) for name, part in value.items()}
    return value


def find_checkpoint(folder: Path, digest: str) -> Path | None:
    """The newest checkpoint of the very same run; what another run left in the folder is removed.

    All processes of a run may ask at once.
    """
    start = folder / START
    if _read(start) != digest:
        _clear(folder)
        commit(start, lambda place: place.write_text(json.dumps(digest), encoding="utf-8"))
        return None
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _read(start: Path) -> Any:
    """The digest in a file; None where there is none, or the file is torn."""
    try:
        return json.loads(start.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _clear(folder: Path) -> None:
    """Make the folder, or remove what is in it, but for hidden files, which another process is about to commit."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[!.]*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def keep_only(checkpoint: Path) -> None:
    """Remove the other checkpoints beside this one."""
    for path in checkpoint.parent.glob("checkpoint-*"):
        if path != checkpoint:
            shutil.rmtree(path, ignore_errors=True)
