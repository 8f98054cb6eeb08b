"""The checkpoint of a tokenizer's training: one safetensors file, whole or absent.

Leaves out which run it belongs to: that is the folder's name and `training.checkpoints.find_checkpoint`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sidrec.atomic import commit
from sidrec.types import Json

__all__ = ["load_checkpoint", "save_checkpoint"]

FILE, FACTS, OPTIMIZER = "training.safetensors", "facts", "optimizer."


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, facts: Mapping[str, float]
) -> None:
    """Write tensors, the optimizer's state and some numbers; an older checkpoint is replaced at the very end."""
    everything = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    for number, values in state.items():
        for name, value in values.items():
            if value is not None:
                everything[f"{OPTIMIZER}{number}.{name}"] = torch.as_tensor(value).contiguous()
    # Infinity, the first best score, is a float that JSON as Python writes it can hold.
    about = {FACTS: json.dumps(facts)}
    commit(folder / FILE, lambda place: save_file(everything, place, about))


def load_checkpoint(folder: Path, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Json] | None:
    """Tensors and numbers of a checkpoint, the optimizer's state put back; None without a readable one."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            facts: Json = json.loads(file.metadata()[FACTS])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError):
        return None
    state: dict[int, dict[str, Tensor]] = {}
    for name in [name for name in tensors if name.startswith(OPTIMIZER)]:
        number, _, key = name.removeprefix(OPTIMIZER).partition(".")
        state.setdefault(int(number), {})[key] = tensors.pop(name)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return tensors, facts
