"""What tokenizers with an encoder and a decoder share: scaling of vectors, encoding in chunks, saving.

Leaves out how latents are quantized and how networks are trained.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sidrec.errors import DataError
from sidrec.tokenizers.residual import ResidualTokenizer, sum_of_codes
from sidrec.types import FloatArray, IntArray

__all__ = ["CHUNK", "AutoencoderTokenizer", "ScaledNetwork"]

CHUNK = 4096
"""Rows that go through encoder or decoder at once outside of training."""
STATE = "tokenizer.safetensors"


class ScaledNetwork(nn.Module):
    """An encoder and a decoder of vectors that are standardised by one mean and one scale.

    Args:
        dims: size of the vectors.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def fit_scaler(self, vectors_ND: Tensor) -> None:
        """Take over the mean of the vectors and their root mean square around it, without a second copy of them."""
        self.mean.copy_(vectors_ND.mean(0))
        total = sum((part - self.mean).square().sum(dtype=torch.float64) for part in vectors_ND.split(CHUNK))
        self.scale.copy_(torch.as_tensor(total / vectors_ND.numel()).sqrt().clamp_min(1e-12))

    @abstractmethod
    def encode(self, vectors_BD: Tensor) -> Tensor:
        """Latents float32[B, D'] of vectors [B, D]."""

    @abstractmethod
    def decode(self, latents_BD: Tensor) -> Tensor:
        """Vectors float32[B, D] of latents [B, D']."""

    @torch.no_grad()
    def encode_all(self, vectors_ND: Tensor) -> Tensor:
        """Latents float32[N, D'] of many vectors, in chunks; call in eval mode."""
        return torch.cat([self.encode(chunk_BD) for chunk_BD in vectors_ND.split(CHUNK)])

    @torch.no_grad()
    def decode_all(self, latents_ND: Tensor) -> Tensor:
        """Vectors float32[N, D] of many latents, in chunks; call in eval mode."""
        return torch.cat([self.decode(chunk_BD) for chunk_BD in latents_ND.split(CHUNK)])


class AutoencoderTokenizer(ResidualTokenizer):
    """A tokenizer whose latents are a network's."""

    _network: Any = None

    @property
    def network(self) -> Any:
        """The fitted `ScaledNetwork`, on the CPU.

        Raises:
            DataError: the tokenizer has not been fitted.
        """
        if self._network is None:
            raise DataError(f"this {type(self).__name__} has no network yet", next="call fit(embeddings) first")
        return self._network

    @abstractmethod
    def _network_of(self, state: dict[str, Tensor]) -> ScaledNetwork:
        """The network whose state dict this is."""

    @abstractmethod
    def _books_of(self, network: Any) -> list[FloatArray]:
        """The codebooks that go with a network."""

    def _adopt(self, network: ScaledNetwork) -> None:
        self._network = network.cpu().eval()
        self._codebooks = self._books_of(network)

    @property
    def dims(self) -> int:
        """D, the size of the vectors that it was fitted on."""
        return len(self.network.mean)

    def latents(self, vectors: FloatArray) -> FloatArray:
        """The encoder's output float32[N, D']."""
        with torch.inference_mode():
            return self.network.encode_all(torch.from_numpy(np.ascontiguousarray(vectors, np.float32))).numpy()

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D] that the decoder makes of codes."""
        with torch.inference_mode():
            return self.network.decode_all(torch.from_numpy(sum_of_codes(codes, self.codebooks))).numpy()

    def save(self, directory: Path) -> None:
        """Write configuration and weights."""
        super().save(directory)
        save_file(self.network.state_dict(), directory / STATE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""
        tokenizer = cls._configured(directory)
        tokenizer._adopt(tokenizer._network_of(load_file(directory / STATE)))
        return tokenizer
