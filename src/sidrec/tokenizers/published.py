"""RQ-VAE weights published by LETTER, LC-Rec, GRec and MiniOneRec, turned into the state of our network.

Their layout: `encoder.mlp_layers.I.weight|bias`, the same for the decoder, `rq.vq_layers.L.embedding.weight`; with
batch normalisation also its statistics, which are folded into the linear layer before it (LETTER normalises after the
last layer too). The file may be the state dict alone or a whole checkpoint with its settings; it is read as
safetensors or by torch's restricted loader, and nothing in it is run.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sidrec.errors import DataError

__all__ = ["published_state"]

EXPECTED = "keys such as encoder.mlp_layers.1.weight, decoder.mlp_layers.1.bias and rq.vq_layers.0.embedding.weight"
BATCH_NORM_EPSILON = 1e-5
"""What torch adds to the variance by default, and the published code leaves as it is."""
_LAYER = re.compile(r"(encoder|decoder)\.mlp_layers\.(\d+)\.(weight|bias|running_mean|running_var)")
_BOOK = re.compile(r"rq\.vq_layers\.(\d+)\.embedding\.weight")


def published_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a `ResidualAutoencoder` without batch normalisation, float32, that equals a published network.

    Raises:
        DataError: the file cannot be read without running code from it, or holds something else.
    """
    parts: dict[str, dict[int, dict[str, Tensor]]] = {"encoder": defaultdict(dict), "decoder": defaultdict(dict)}
    books: dict[int, Tensor] = {}
    strange: list[str] = []
    for name, tensor in _tensors(path).items():
        layer, book = _LAYER.fullmatch(name), _BOOK.fullmatch(name)
        if layer is not None:
            parts[layer[1]][int(layer[2])][layer[3]] = tensor.float()
        elif book is not None:
            books[int(book[1])] = tensor.float()
        elif not name.endswith("num_batches_tracked"):
            strange.append(name)
    if strange or not books or not all(parts.values()):
        found = (
            f"unknown keys: {', '.join(sorted(strange)[:3])}" if strange else "encoder, decoder or codebooks missing"
        )
        raise DataError(f"these are no weights of a published RQ-VAE: {found}", where=str(path), expected=EXPECTED)
    state = {f"quantizer.codebooks.{level}": books[level] for level in sorted(books)}
    for part, layers in parts.items():
        for number, (weight, bias) in enumerate(_linear_layers(layers)):
            # Dropout, linear, ReLU: the linear layer is every third module, from the second on.
            state |= {f"{part}.{3 * number + 1}.weight": weight, f"{part}.{3 * number + 1}.bias": bias}
    return state | {"mean": torch.zeros(state["encoder.1.weight"].shape[1]), "scale": torch.ones(())}


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # The settings of a published checkpoint are an argparse namespace: names and values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # What the restricted loader refuses it reports in a class of the pickle module, files in their own.
        raise DataError(_reason(error), where=str(path), next="save the state dict alone, as safetensors") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError("the file holds no state dict", where=str(path), expected=EXPECTED)
    return state


def _reason(error: Exception) -> str:
    return f"no file of weights that can be read without running code from it ({type(error).__name__})"


def _linear_layers(layers: Mapping[int, Mapping[str, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of the linear layers in order, batch normalisation folded in."""
    out: list[tuple[Tensor, Tensor]] = []
    for number in sorted(layers):
        found = layers[number]
        if "running_var" not in found:
            out.append((found["weight"], found["bias"]))
            continue
        factor = found["weight"] / (found["running_var"] + BATCH_NORM_EPSILON).sqrt()
        weight, bias = out.pop()
        out.append((weight * factor[:, None], (bias - found["running_mean"]) * factor + found["bias"]))
    return out
