"""One row a recommender and one or more a tokenizer: tiny settings with which they are held against their contracts.

A new method adds its row here and is tested like all the others.
"""

from dataclasses import dataclass, field
from typing import Any

from sidrec.training.config import OptimizerConfig, TrainingConfig

QUICK = TrainingConfig(max_epochs=2, batch_size=32)
"""Enough to have a state worth comparing."""


@dataclass(frozen=True)
class Case:
    """A recommender with a tiny configuration.

    Attributes:
        kind: its name in the registry.
        fields: of its configuration.
        note: which of a kind's cases this is.
        quick: training for the contract, which asks for no quality.
        learns: training with which it reaches hit@1 = 1 on the cycle, or None where it cannot.
        why_not: why it cannot.
        members: name → case of a recommender that it is made of; trained as this one is, `quick` or `learns`.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    quick: TrainingConfig = QUICK
    learns: TrainingConfig | None = None
    why_not: str = ""
    members: "dict[str, Case]" = field(default_factory=dict)


SMALL_SASREC = {"hidden_size": 32, "num_layers": 1, "dropout": 0.0, "max_history": 8}
LEARNS_SASREC = TrainingConfig(max_epochs=40, batch_size=32, optimizer=OptimizerConfig(lr=5e-3))

# Test histories are longer than any in training; a short memory sees the same lengths in both.
SMALL_TIGER = {
    "d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1, "dropout": 0.0, "max_history": 2,
}  # fmt: skip
LEARNS_TIGER = TrainingConfig(max_epochs=45, batch_size=64, optimizer=OptimizerConfig(lr=8e-3))
SMALL_DECODER = {"d_model": 32, "num_heads": 2, "d_ff": 64, "num_layers": 2, "dropout": 0.0, "max_history": 4}
LEARNS_DECODER = TrainingConfig(max_epochs=90, batch_size=64, optimizer=OptimizerConfig(lr=5e-3))
SMALL_ITEM_DECODER = {
    "d_model": 32, "num_heads": 2, "num_layers": 1, "dropout": 0.0, "depth_dropout": 0.0, "max_history": 4,
}  # fmt: skip
LEARNS_ITEM_DECODER = TrainingConfig(max_epochs=60, batch_size=64, optimizer=OptimizerConfig(lr=5e-3))

CASES = [
    Case(
        "popularity",
        why_not="all items of the cycle are equally popular, and it does not read the history's order",
    ),
    Case("item-knn", learns=QUICK),
    Case("sasrec", fields=SMALL_SASREC, learns=LEARNS_SASREC),
    Case(
        "sasrec",
        fields={
            **SMALL_SASREC,
            "positions": "rope",
            "norm_place": "post",
            "attention_norm": "rms",
            "scale_inputs": False,
            "special_rows": 4,
            "begin": True,
        },
        note="as the originals",
        learns=LEARNS_SASREC,
    ),
    Case(
        "sasrec",
        fields={
            **SMALL_SASREC,
            "feed_forward": "gated",
            "activation": "silu",
            "tied": False,
            "bias": False,
            "head_width": 8,
            "objective": {"kind": "gbce", "num_negatives": 8},
        },
        note="gated, untied, gbce",
        learns=LEARNS_SASREC,
    ),
    Case(
        "sasrec",
        fields={
            **SMALL_SASREC,
            "feed_forward": "moe",
            "expert": "gated",
            "shared_expert": True,
            "objective": {"kind": "sampled_softmax", "negatives": "popularity", "num_negatives": 16},
        },
        note="experts, sampled softmax",
        learns=LEARNS_SASREC,
    ),
    Case(
        "tiger",
        fields=SMALL_TIGER,
        learns=LEARNS_TIGER,
    ),
    Case(
        "tiger",
        fields={**SMALL_TIGER, "item_inputs": "sum", "item_positions": True},
        note="an item a position",
        learns=LEARNS_TIGER,
    ),
    Case(
        "tiger",
        fields={**SMALL_TIGER, "item_positions": True, "history_dropout": 0.2, "subsequences": True},
        note="thinned histories",
        learns=LEARNS_TIGER,
    ),
    Case(
        "tiger",
        fields={**SMALL_TIGER, "user_tokens": 8},
        note="users",
        learns=LEARNS_TIGER.model_copy(update={"max_epochs": 70}),
    ),
    Case("item-decoder", fields=SMALL_ITEM_DECODER, learns=LEARNS_ITEM_DECODER),
    Case(
        "item-decoder",
        fields={**SMALL_ITEM_DECODER, "item_vectors": False, "user_tokens": 20, "history_dropout": 0.1},
        note="codes alone, users, thinned histories",
        learns=LEARNS_ITEM_DECODER,
    ),
    Case(
        "item-decoder",
        fields={**SMALL_ITEM_DECODER, "outputs": "nodes", "label_smoothing": 0.05},
        note="nodes, smoothed",
        learns=LEARNS_ITEM_DECODER,
    ),
    Case("decoder", fields=SMALL_DECODER, learns=LEARNS_DECODER),
    Case("decoder", fields={**SMALL_DECODER, "packed": True}, note="packed", learns=LEARNS_DECODER),
    Case(
        "decoder",
        fields={**SMALL_DECODER, "user_tokens": 20, "history_dropout": 0.1, "subsequences": True},
        note="users, thinned histories",
        learns=LEARNS_DECODER,
    ),
]
CASES += [
    Case(
        "ensemble",
        fields={"members": ["sasrec", "decoder"], "candidates": 6},
        note="SASRec and decoder",
        learns=LEARNS_SASREC,
        members={"sasrec": CASES[2], "decoder": CASES[-1]},
    ),
    Case(
        "ensemble",
        fields={"members": ["one", "two"], "weights": [2, 1]},
        note="two SASRec, weighted",
        learns=LEARNS_SASREC,
        members={"one": CASES[2], "two": CASES[4]},
    ),
]


@dataclass(frozen=True)
class TokenizerCase:
    """A tokenizer with a tiny configuration.

    Attributes:
        kind: its name in the registry.
        fields: of its configuration.
        note: which of a kind's cases this is.
        why_not: why it can be held against no contract.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    why_not: str = ""


SMALL_VAE = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "epochs": 6, "batch_size": 64}

TOKENIZERS = [
    TokenizerCase("rqkmeans", {"levels": 3, "codebook_size": 16}),
    TokenizerCase("rqkmeans", {"levels": 2, "codebook_size": 16, "normalize": True}, "directions"),
    TokenizerCase("rqkmeans", {"levels": 2, "codebook_size": 16, "collisions": "nearest_free"}, "nearest free"),
    TokenizerCase("rqkmeans", {"codebook_sizes": (24, 12, 4), "balanced": True}, "balanced, unequal sizes"),
    TokenizerCase("opq", {"levels": 3, "codebook_size": 16}),
    TokenizerCase("opq", {"codebook_sizes": (12, 24), "rotate": False, "collisions": "nearest_free"}, "no rotation"),
    TokenizerCase("fsq", {"levels": 2, "axes": (4, 4), "layers": (32,), "epochs": 6, "batch_size": 64}),
    TokenizerCase("random", {"levels": 2, "codebook_size": 16}),
    TokenizerCase("rqvae", SMALL_VAE),
    TokenizerCase(
        "rqvae",
        {
            **SMALL_VAE,
            "dropout": 0.1,
            "batch_norm": True,
            "commit": "first",
            "gradient": "rotation",
            "reconstruction": "infonce",
            "sinkhorn": (0.0, 0.003),
            "init": "balanced",
            "optimizer": "adam",
            "schedule": "linear",
            "monitor": "gini",
            "patience": 2,
            "validate_every": 2,
            "revive_every": 2,
            "collisions": {"kind": "sinkhorn_reassign", "rounds": 2},
        },
        "many options",
    ),
    TokenizerCase("rqvae", {**SMALL_VAE, "ema_decay": 0.9, "init": "first_batch"}, "moving averages"),
    TokenizerCase("rqvae", {**SMALL_VAE, "metric": "cosine", "init": "uniform"}, "cosine"),
    TokenizerCase("rqvae", {**SMALL_VAE, "metric": "dot", "reconstruction": "l1"}, "dot"),
    TokenizerCase(
        "rqvae",
        {**SMALL_VAE, "skip": True, "codebook_size": 256, "codebook_sizes": (8, 16)},
        "warm start, unequal levels",
    ),
    TokenizerCase("letter", {**SMALL_VAE, "clusters": 4}),
    TokenizerCase("letter", {**SMALL_VAE, "alpha": 0.0, "cluster_every": 3}, "without collaborative vectors"),
    TokenizerCase("given"),
    TokenizerCase("given", {"sizes": (16, 16), "collisions": "append_level"}, "with sizes"),
    TokenizerCase("auto", why_not="it stands for another tokenizer until the dataset is known"),
]
