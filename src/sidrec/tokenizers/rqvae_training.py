"""The training loop of RQ-VAE: thousands of tiny steps on resident tensors, resumable at every step.

Nothing is transferred to the host inside a step of RQ-VAE. Every draw comes from a stream keyed by epoch or step, so
a killed run that goes on from a checkpoint ends with the same bits. A method that adds a loss adds a `Term`.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sidrec.progress import Advance
from sidrec.random import torch_seed
from sidrec.tokenizers.autoencoder import CHUNK
from sidrec.tokenizers.checkpoint import load_checkpoint, save_checkpoint
from sidrec.tokenizers.networks import diverged
from sidrec.tokenizers.quality import code_quality
from sidrec.tokenizers.quantizer import QuantizerOutput
from sidrec.tokenizers.residual import residual_codes
from sidrec.tokenizers.rqvae_config import RQVAEConfig
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder

__all__ = ["Look", "RQVAETraining", "Term"]

CHECKPOINT_SECONDS = 20.0
"""Seconds between checkpoints at least."""
OPTIMIZERS: dict[str, Any] = {
    # The fused step reads every parameter once.
    "adamw": lambda parameters, **settings: torch.optim.AdamW(parameters, fused=True, **settings),
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


class Term(Protocol):
    """One more loss, weighted already."""

    def begin_epoch(self, network: ResidualAutoencoder, epoch: int) -> None:
        """Called before the first step of every epoch."""
        ...

    def loss(self, network: ResidualAutoencoder, output: QuantizerOutput, rows_B: Tensor, step: int) -> Tensor:
        """The loss of a batch of items, a scalar with gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What `begin_epoch` decided, for checkpoints."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        ...


class Look(Protocol):
    """Hears of every look at all items."""

    def __call__(self, epoch: int, figures: dict[str, float]) -> None:
        """`figures` are error, collisions, gini and the mean training loss since the last look."""
        ...


class RQVAETraining:
    """One training of a network on vectors float32[N, D]."""

    def __init__(
        self,
        config: RQVAEConfig,
        network: ResidualAutoencoder,
        vectors_ND: Tensor,
        seed: int,
        *,
        terms: Sequence[Term] = (),
        look: Look | None = None,
    ) -> None:
        self.config, self.network, self.vectors_ND, self.seed = config, network, vectors_ND, seed
        self.terms, self.look = terms, look
        self.batches = len(self.batch_rows(0))
        self.steps = config.epochs * self.batches
        learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS[config.optimizer](
            learnt, lr=config.lr, weight_decay=config.weight_decay
        )
        device = vectors_ND.device
        self.used = [torch.zeros(len(book), device=device) for book in network.quantizer.codebooks]
        self.loss_sum = torch.zeros((), device=device)
        self.step, self.stale, self.since_look, self.best_score = 0, 0, 0, math.inf
        self.best: dict[str, Tensor] = {}

    def run(self, advance: Advance, scratch: Path | None = None) -> dict[str, Tensor]:
        """Train to the end; the state dict to keep.

        Args:
            advance: hears of finished epochs.
            scratch: folder of the checkpoint; None keeps none.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        saved = time.monotonic()
        if scratch is not None and self._resume(scratch):
            advance(self.step // self.batches, "resumed")
        order: tuple[Tensor, ...] = ()
        while self.step < self.steps:
            epoch, batch = divmod(self.step, self.batches)
            if batch == 0:
                for term in self.terms:
                    term.begin_epoch(self.network, epoch)
            if not order:
                order = self.batch_rows(epoch)
            self._train_on(order[batch])
            self.step += 1
            if batch + 1 == self.batches:
                order = ()
                if self._end_epoch(epoch + 1, advance):
                    break
            if scratch is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                self._save(scratch)
                saved = time.monotonic()
        return self.best or _copy(self.network)

    def batch_rows(self, epoch: int) -> tuple[Tensor, ...]:
        """The rows int64[B] of every batch of an epoch."""
        order_N = torch.randperm(len(self.vectors_ND), generator=self._generator("order", epoch))
        rows = order_N.to(self.vectors_ND.device).split(self.config.batch_size)
        if len(rows) > 1 and len(rows[-1]) == 1:
            # A single item has no batch statistics and no negatives.
            rows = (*rows[:-2], torch.cat(rows[-2:]))
        return rows

    def _generator(self, use: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(torch_seed(self.seed, "rqvae", use, str(number)))

    def _train_on(self, rows_B: Tensor) -> None:
        network, config = self.network.train(), self.config
        if config.dropout:
            torch.manual_seed(torch_seed(self.seed, "rqvae", "dropout", str(self.step)))
        losses = network.losses(self.vectors_ND[rows_B], config.precision == "bf16")
        output = losses.quantized
        loss = losses.reconstruction + config.quantization_weight * (
            output.codebook + config.commitment_weight * output.commitment
        )
        for term in self.terms:
            loss = loss + term.loss(network, output, rows_B, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(config, self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        self.optimizer.step()
        network.quantizer.follow(output)
        self.loss_sum += loss.detach()
        self.since_look += 1
        for used_K, codes_B in zip(self.used, output.codes_BL.unbind(1), strict=True):
            used_K.scatter_(0, codes_B, 1.0)

    def _end_epoch(self, epoch: int, advance: Advance) -> bool:
        """Look, report, revive; whether training stops early."""
        config = self.config
        if not torch.isfinite(self.loss_sum):
            raise diverged(epoch)
        stops = False
        if config.validate_every and (epoch % config.validate_every == 0 or epoch == config.epochs):
            stops = self._look(epoch, advance)
        else:
            advance()
        # After the look: revived codes know nothing yet.
        if config.revive_every and epoch % config.revive_every == 0 and 4 * epoch <= 3 * config.epochs and not stops:
            self._revive(epoch)
        return stops

    def _look(self, epoch: int, advance: Advance) -> bool:
        """Figures over all items; keeps the best state, and says whether it has not improved for too long."""
        config = self.config
        figures = self.figures()
        score = sum(figures[name] for name in config.monitor.split("+"))
        self.stale += 1
        if score < self.best_score:
            self.best_score, self.best, self.stale = score, _copy(self.network), 0
        if self.look is not None:
            self.look(epoch, figures | {"loss": float(self.loss_sum) / self.since_look})
        self.loss_sum.zero_()
        self.since_look = 0
        advance(1, f"error {figures['error']:.3f}, collisions {figures['collisions']:.3f}")
        return bool(config.patience) and self.stale >= config.patience

    @torch.no_grad()
    def _revive(self, epoch: int) -> None:
        """Move codes that nothing chose since the last time onto residuals of items drawn at random."""
        network = self.network.eval()
        rows = torch.randperm(len(self.vectors_ND), generator=self._generator("revive", epoch))[:CHUNK]
        latents_BD = network.encode(self.vectors_ND[rows.to(self.vectors_ND.device)])
        quantizer = network.quantizer
        residuals = residual_codes(latents_BD, list(quantizer.codebooks), quantizer.metric)[1]
        for level, (residual_BD, used_K) in enumerate(zip(residuals, self.used, strict=True)):
            dead = torch.nonzero(used_K == 0)[: len(residual_BD), 0]
            quantizer.revive(level, dead, residual_BD[: len(dead)])
            used_K.zero_()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Relative reconstruction error, collision rate and mean Gini of code usage over all items."""
        network, books = self.network.eval(), list(self.network.quantizer.codebooks)
        codes: list[Tensor] = []
        error, spread = 0.0, 0.0
        for batch_BD in self.vectors_ND.split(CHUNK):
            codes_BL = residual_codes(network.encode(batch_BD), books, network.quantizer.metric)[0]
            quantized_BD = torch.stack([book[codes_BL[:, level]] for level, book in enumerate(books)]).sum(0)
            error += float((network.decode(quantized_BD) - batch_BD).square().sum(dtype=torch.float64))
            spread += float((batch_BD - self._centre).square().sum(dtype=torch.float64))
            codes.append(codes_BL.cpu())
        quality = code_quality(torch.cat(codes).numpy(), [len(book) for book in books])
        ginis = [level["gini"] for level in quality["levels"]]
        return {
            "error": error / spread if spread else float(error > 0),
            "collisions": quality["collision_rate"],
            "gini": sum(ginis) / len(ginis),
        }

    @property
    def _centre(self) -> Tensor:
        return self.network.mean if self.config.standardize else self.vectors_ND.mean(0)

    def _save(self, scratch: Path) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"used.{level}": used_K for level, used_K in enumerate(self.used)}
        for number, term in enumerate(self.terms):
            tensors |= {f"term.{number}.{name}": tensor for name, tensor in term.state().items()}
        save_checkpoint(
            scratch,
            tensors | {"loss_sum": self.loss_sum},
            self.optimizer,
            {
                "step": self.step,
                "stale": self.stale,
                "since_look": self.since_look,
                "best_score": self.best_score,
            },
        )

    def _resume(self, scratch: Path) -> bool:
        """Go on from the checkpoint in a folder, if there is one."""
        found = load_checkpoint(scratch, self.optimizer)
        if found is None:
            return False
        tensors, facts = found
        self.network.load_state_dict(_under("network.", tensors))
        self.best = _under("best.", tensors)
        self.used = [tensors[f"used.{level}"].to(self.vectors_ND.device) for level in range(len(self.used))]
        self.loss_sum = tensors["loss_sum"].to(self.vectors_ND.device)
        for number, term in enumerate(self.terms):
            state = _under(f"term.{number}.", tensors)
            term.load_state({name: tensor.to(self.vectors_ND.device) for name, tensor in state.items()})
        self.step, self.stale, self.since_look = facts["step"], facts["stale"], facts["since_look"]
        self.best_score = facts["best_score"]
        return True


def learning_rate(config: RQVAEConfig, step: int, steps: int) -> float:
    """The learning rate of a step as a share of its peak: a linear rise, then as the schedule says.

    >>> config = RQVAEConfig(kind="rqvae", warmup_ratio=0.5, schedule="linear")
    >>> [round(learning_rate(config, step, 4), 2) for step in range(4)]
    [0.33, 0.67, 1.0, 0.5]
    """
    warmup = config.warmup_ratio * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1.0, steps - warmup)
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _copy(network: ResidualAutoencoder) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
