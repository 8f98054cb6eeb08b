"""RQ-VAE: an autoencoder whose latent is quantised level by level, as TIGER, LC-Rec and LETTER train it.

TIGER (2023, arXiv:2305.05065), LC-Rec (2023, arXiv:2311.09049), LETTER (2024, arXiv:2405.07314)
without its collaborative and diversity terms. Nothing is variational. Deviations from their code:
inputs are standardised, the commitment of every level reaches the encoder (`commit="first"` is
theirs), codebooks start from k-means over all items, unused codes are revived, the learning rate
falls, the best state is kept, and encoding never needs the trainer. What two of them gave is in the
project's log.

The loop is its own: thousands of tiny epochs on resident tensors, with no transfer to the host
inside a step.
"""

import math
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.progress import Advance
from sidrec.random import torch_seed
from sidrec.tokenizers.base import TokenizerConfig
from sidrec.tokenizers.quality import code_quality, relative_error
from sidrec.tokenizers.residual import ResidualTokenizer, residual_codes, sum_of_codes
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder
from sidrec.types import FloatArray, IntArray

__all__ = ["RQVAE"]

STATE = "tokenizer.safetensors"
BATCH = 4096
"""Rows that go through the network at once when items are encoded."""


class RQVAE(ResidualTokenizer):
    """A learned residual quantiser."""

    class Config(TokenizerConfig):
        """RQ-VAE."""

        kind: Literal["rqvae"] = "rqvae"
        levels: int = Field(default=3, ge=1)
        """L, number of codes an item gets before collisions are settled."""
        codebook_size: int = Field(default=256, ge=1)
        """K, codes in a level; fewer where the catalogue holds fewer distinct vectors."""
        layers: tuple[int, ...] = (512, 256, 128)
        """Hidden sizes of the encoder; the decoder is its mirror image."""
        latent_dim: int = Field(default=32, ge=1)
        """Size of the quantised latent."""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout before every linear layer."""
        standardize: bool = True
        """Centre the vectors and give them unit variance, so that settings do not depend on their scale."""
        beta: float = Field(default=0.25, ge=0)
        """Weight of the commitment loss."""
        quantization_weight: float = Field(default=1.0, ge=0)
        """Weight of codebook and commitment losses beside the reconstruction."""
        commit: Literal["first", "all"] = "all"
        """Levels whose commitment reaches the encoder; LC-Rec's and LETTER's code lets only the first."""
        balanced_levels: int = Field(default=0, ge=0)
        """Last levels whose codes are balanced by Sinkhorn in training; LC-Rec and LETTER balance one."""
        epsilon: float = Field(default=0.003, gt=0)
        """Entropy weight of Sinkhorn."""
        epochs: int = Field(default=100, ge=1)
        """Passes over the items."""
        batch_size: int = Field(default=128, ge=1)
        """Items in a step."""
        lr: float = Field(default=2e-3, gt=0)
        """Peak learning rate of AdamW."""
        weight_decay: float = Field(default=1e-4, ge=0)
        """Decoupled weight decay, on all parameters as published."""
        warmup_ratio: float = Field(default=0.02, ge=0, lt=1)
        """Share of the steps in which the learning rate rises."""
        schedule: Literal["cosine", "constant"] = "cosine"
        """How the learning rate goes on after the warm-up."""
        max_grad_norm: float = Field(default=1.0, gt=0)
        """Gradients are clipped to this norm."""
        precision: Literal["fp32", "bf16"] = "fp32"
        """Arithmetic of encoder and decoder in training; quantisation is always fp32."""
        revive_every: int = Field(default=10, ge=0)
        """Epochs after which codes that no item used move to items; 0 leaves them dead. Not in the last quarter."""
        validate_every: int = Field(default=10, ge=0)
        """Epochs between looks at all items; the least error plus collision rate is kept (0: the last state)."""

    _network: ResidualAutoencoder | None = None

    @property
    def network(self) -> ResidualAutoencoder:
        """The fitted network, on the CPU.

        Raises:
            DataError: the tokenizer has not been fitted.
        """
        if self._network is None:
            raise DataError("this RQVAE has no network yet", next="call fit(embeddings) first")
        return self._network

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Train the network; keeps the best state it saw.

        Args:
            embeddings: vectors of the catalogue.
            run: seed, device, progress.
            collaborative: not looked at.
        """
        config: RQVAE.Config = self.config
        device = run.torch_device()
        vectors_ND = torch.from_numpy(np.ascontiguousarray(embeddings.vectors, np.float32)).to(device)
        network = self._new_network(vectors_ND.shape[1])
        network.initialize_weights(torch_seed(run.seed, "rqvae", "weights"))
        network.to(device)
        if config.standardize:
            network.fit_scaler(vectors_ND)
        network.initialize_codebooks(vectors_ND, torch_seed(run.seed, "rqvae", "codebooks"))
        # Dropout draws from the global stream; forking it leaves the caller's state as it was.
        with (
            torch.random.fork_rng([] if device == "cpu" else None),
            run.progress("train the tokenizer", config.epochs) as advance,
        ):
            torch.manual_seed(torch_seed(run.seed, "rqvae", "dropout"))
            best = _Training(config, network, vectors_ND, run.seed).run(advance)
        network.load_state_dict(best)
        self._adopt(network)
        return self

    def latents(self, vectors: FloatArray) -> FloatArray:
        """The encoder's output float32[N, D']."""
        points = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        with torch.inference_mode():
            return torch.cat([self.network.encode(batch) for batch in points.split(BATCH)]).numpy()

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D] that the decoder makes of codes."""
        points = torch.from_numpy(sum_of_codes(codes, self.codebooks))
        with torch.inference_mode():
            return torch.cat([self.network.decode(batch) for batch in points.split(BATCH)]).numpy()

    def save(self, directory: Path) -> None:
        """Write configuration and weights."""
        super().save(directory)
        save_file(self.network.state_dict(), directory / STATE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""
        tokenizer = cls._configured(directory)
        state = load_file(directory / STATE)
        network = tokenizer._new_network(len(state["mean"]))
        network.size_codebooks([len(state[f"codebooks.{level}"]) for level in range(tokenizer.config.levels)])
        network.load_state_dict(state)
        tokenizer._adopt(network)
        return tokenizer

    def _new_network(self, dims: int) -> ResidualAutoencoder:
        config: RQVAE.Config = self.config
        # Layers draw first weights from the global stream, which is the caller's.
        with torch.random.fork_rng([]):
            return ResidualAutoencoder(
                [dims, *config.layers, config.latent_dim],
                [config.codebook_size] * config.levels,
                dropout=config.dropout,
                passes_residual_gradient=config.commit == "all",
                num_balanced=config.balanced_levels,
                epsilon=config.epsilon,
            )

    def _adopt(self, network: ResidualAutoencoder) -> None:
        self._network = network.cpu().eval().requires_grad_(False)
        self._codebooks = [book.detach().numpy() for book in self._network.codebooks]


class _Training:
    """The loop: every step on the device, one look at all items now and then."""

    def __init__(self, config: RQVAE.Config, network: ResidualAutoencoder, vectors_ND: torch.Tensor, seed: int) -> None:
        self.config, self.network, self.vectors_ND = config, network, vectors_ND
        self.steps = config.epochs * math.ceil(len(vectors_ND) / config.batch_size)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.order = torch.Generator().manual_seed(torch_seed(seed, "rqvae", "order"))
        self.used = [torch.zeros(len(book), device=vectors_ND.device) for book in network.codebooks]

    def run(self, advance: Advance) -> dict[str, torch.Tensor]:
        """Train for all epochs; the state dict to keep."""
        config = self.config
        best_score, best = math.inf, {}
        for epoch in range(1, config.epochs + 1):
            self._epoch()
            if config.revive_every and epoch % config.revive_every == 0 and 4 * epoch <= 3 * config.epochs:
                self._revive()
            validates = config.validate_every and (epoch % config.validate_every == 0 or epoch == config.epochs)
            if validates:
                error, collisions = self._validate()
                if error + collisions < best_score:
                    best_score, best = error + collisions, _copy(self.network)
                advance(1, f"error {error:.3f}, collisions {collisions:.3f}")
            else:
                advance()
        return best or _copy(self.network)

    def _rate(self, step: int) -> float:
        warmup = self.config.warmup_ratio * self.steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, self.steps - warmup)))

    def _epoch(self) -> None:
        network, config = self.network.train(), self.config
        order_N = torch.randperm(len(self.vectors_ND), generator=self.order).to(self.vectors_ND.device)
        for rows_B in order_N.split(config.batch_size):
            losses, codes_BL = network.losses(self.vectors_ND[rows_B], config.precision == "bf16")
            loss = losses.reconstruction + config.quantization_weight * (
                losses.codebook + config.beta * losses.commitment
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
            self.optimizer.step()
            self.schedule.step()
            for used_K, codes_B in zip(self.used, codes_BL.unbind(1), strict=True):
                used_K.scatter_(0, codes_B, 1.0)

    @torch.no_grad()
    def _revive(self) -> None:
        """Move codes that nothing chose since the last time onto residuals of items drawn at random."""
        network = self.network.eval()
        rows = torch.randperm(len(self.vectors_ND), generator=self.order)[:BATCH].to(self.vectors_ND.device)
        latents_BD = network.encode(self.vectors_ND[rows])
        residuals = residual_codes(latents_BD, list(network.codebooks))[1]
        for book_KD, residual_BD, used_K in zip(network.codebooks, residuals, self.used, strict=True):
            dead = torch.nonzero(used_K == 0)[: len(residual_BD), 0]
            book_KD[dead] = residual_BD[: len(dead)]
            used_K.zero_()

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Relative reconstruction error and collision rate over all items."""
        network = self.network.eval()
        books = list(network.codebooks)
        rebuilt: list[torch.Tensor] = []
        codes: list[torch.Tensor] = []
        for batch_BD in self.vectors_ND.split(BATCH):
            codes_BL = residual_codes(network.encode(batch_BD), books)[0]
            quantized_BD = torch.stack([book[codes_BL[:, level]] for level, book in enumerate(books)]).sum(0)
            rebuilt.append(network.decode(quantized_BD).cpu())
            codes.append(codes_BL.cpu())
        error = relative_error(self.vectors_ND.cpu().numpy(), torch.cat(rebuilt).numpy())
        sizes = [len(book) for book in books]
        return error, code_quality(torch.cat(codes).numpy(), sizes)["collision_rate"]


def _copy(network: ResidualAutoencoder) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
