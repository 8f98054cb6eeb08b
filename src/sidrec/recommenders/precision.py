"""In which numbers a model is searched."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from sidrec.decoding.recommendations import Precision

__all__ = ["has_bf16", "in_precision"]


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch before 2.10 does not tell what the processor has.
    tell: Any = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: Mapping[str, Any] = tell() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def in_precision(model: PreTrainedModel, precision: Precision) -> PreTrainedModel:
    """The model itself, or a copy with weights rounded to bfloat16."""
    wanted = precision == "bf16" or (precision == "auto" and has_bf16(model.device))
    if not wanted or model.dtype != torch.float32:
        return model
    rounded: Any = copy.deepcopy(model)
    return rounded.to(torch.bfloat16)
