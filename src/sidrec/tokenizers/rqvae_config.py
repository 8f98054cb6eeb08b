"""All settings of RQ-VAE; what they do stands in `quantizer`, `rqvae_network` and `rqvae_training`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sidrec.tokenizers.quantizer import Gradient, ResidualRule
from sidrec.tokenizers.rqvae_network import Reconstruction
from sidrec.tokenizers.sizes import SizedConfig
from sidrec.types import Metric

__all__ = ["Initialization", "Monitor", "Optimizer", "RQVAEConfig"]

Initialization = Literal["uniform", "first_batch", "kmeans", "balanced"]
"""Where codebooks begin."""
Monitor = Literal["error+collisions", "error", "collisions", "gini"]
"""The figure over all items by which the best state is chosen; smaller is better."""
Optimizer = Literal["adamw", "adam", "sgd", "adagrad", "rmsprop"]
"""The learning rules that the published trainers offer."""


class RQVAEConfig(SizedConfig):
    """RQ-VAE."""

    kind: str
    weights: str = ""
    """A published RQ-VAE (layout of LETTER, LC-Rec and GRec; weights-only file) to take over instead of training."""

    layers: tuple[int, ...] = (512, 256, 128)
    """Hidden sizes of the encoder; the decoder is its mirror image."""
    latent_dim: int = Field(default=32, ge=1)
    """Size of the quantized latent; with `skip` it is that of the vectors."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before every linear layer."""
    batch_norm: bool = False
    """Batch normalisation after every linear layer but the last."""
    skip: bool = False
    """Encoder and decoder learn corrections of their input, none at first: training starts at RQ-k-means."""
    standardize: bool = True
    """Centre the vectors and give them unit variance, so that settings do not depend on their scale."""
    reconstruction: Reconstruction = "mse"
    """Reconstruction loss: mse, l1 or infonce."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the reconstruction loss infonce."""

    metric: Metric = "l2"
    """What makes a code the nearest: l2, cosine or dot."""
    commitment_weight: float = Field(default=0.25, ge=0)
    """β of RQ-VAE (μ of LETTER): how strongly the encoder keeps to the codes it gets."""
    quantization_weight: float = Field(default=1.0, ge=0)
    """Weight of codebook and commitment losses beside the reconstruction."""
    commit: ResidualRule = "all"
    """Levels whose commitment reaches the encoder; the code of LC-Rec and LETTER lets only the first."""
    gradient: Gradient = "straight_through"
    """How gradients pass the quantizer: straight_through or rotation."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Codebooks follow moving averages of what they quantize, with this decay; 0 lets them learn by gradient."""
    sinkhorn: tuple[float, ...] = ()
    """For each level ε of Sinkhorn balancing in training, 0 for none; LC-Rec and LETTER: 0, 0, 0, 0.003."""
    sinkhorn_iterations: int = Field(default=50, ge=1)
    """Steps of each balancing."""

    init: Initialization = "kmeans"
    """Codebooks at first: uniform in ±1/K, or k-means on the first batch, on all items (kmeans) or balanced on all."""
    init_sample: int = Field(default=16384, ge=1)
    """Items that k-means looks at, drawn from larger catalogues; the balanced kind takes minutes for many more."""
    init_iterations: int = Field(default=10, ge=1)
    """Lloyd steps of k-means."""
    revive_every: int = Field(default=10, ge=0)
    """Epochs after which codes that no item used move to items; 0 leaves them dead. Not in the last quarter."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the items."""
    batch_size: int = Field(default=128, ge=1)
    """Items in a step."""
    optimizer: Optimizer = "adamw"
    """Learning rule."""
    lr: float = Field(default=2e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay, on all parameters as published."""
    warmup_ratio: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of encoder and decoder in training; quantization is always fp32."""
    validate_every: int = Field(default=10, ge=0)
    """Epochs between looks at all items, of which the best state is kept; 0 keeps the last."""
    monitor: Monitor = "error+collisions"
    """The figure that decides which state is best: error+collisions, error, collisions or gini (of code usage)."""
    patience: int = Field(default=0, ge=0)
    """Looks without improvement after which training stops; 0 never stops early."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.sinkhorn and len(self.sinkhorn) != len(self.sizes):
            raise ValueError(f"sinkhorn has {len(self.sinkhorn)} values for {len(self.sizes)} levels; give one a level")
        points = {"first_batch": self.batch_size, "kmeans": self.init_sample, "balanced": self.init_sample}
        if not self.weights and points.get(self.init, max(self.sizes) + 1) <= max(self.sizes):
            raise ValueError(
                f"init={self.init} looks at {points[self.init]} items, no more than the {max(self.sizes)} codes of a "
                "level: nothing would be left to later levels; raise "
                + ("batch_size" if self.init == "first_batch" else "init_sample")
            )
        if self.weights and (self.skip or self.ema_decay):
            raise ValueError("published weights have neither skip connections nor moving averages; leave both out")
        if self.patience and not self.validate_every:
            raise ValueError("patience counts looks at all items; set validate_every")
        return self
