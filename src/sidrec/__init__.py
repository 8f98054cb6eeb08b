"""Generative recommendation with semantic IDs: data, tokenizers, recommenders, exact decoding, evaluation.

Importing this package does nothing and loads nothing heavy: every public name is imported when it
is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sidrec.version import __version__

if TYPE_CHECKING:
    from sidrec.algorithms.dpo import DPO
    from sidrec.config import RunSettings
    from sidrec.data.catalog import Catalog
    from sidrec.data.dataset import Dataset
    from sidrec.data.preparation import PrepareConfig
    from sidrec.embeddings.base import ItemEmbeddings
    from sidrec.errors import SidrecError
    from sidrec.evaluation.protocol import Protocol
    from sidrec.recommenders.base import Recommender
    from sidrec.stages.compare import compare
    from sidrec.stages.embed import embed
    from sidrec.stages.enrich import enrich
    from sidrec.stages.evaluate import evaluate
    from sidrec.stages.inspect import inspect
    from sidrec.stages.layout import RunFolder
    from sidrec.stages.prepare import prepare
    from sidrec.stages.recipe import Recipe, load_recipe
    from sidrec.stages.recommend import recommend
    from sidrec.stages.run import run_recipe
    from sidrec.stages.tokenize import load_semantic_ids, tokenize
    from sidrec.stages.train import train
    from sidrec.stages.tune import tune
    from sidrec.tokenizers.fsq import FSQ
    from sidrec.tokenizers.given import Given
    from sidrec.tokenizers.letter import Letter
    from sidrec.tokenizers.opq import OPQ
    from sidrec.tokenizers.random_codes import RandomCodes
    from sidrec.tokenizers.rqkmeans import RQKMeans
    from sidrec.tokenizers.rqvae import RQVAE
    from sidrec.tokenizers.semantic_ids import SemanticIds

__all__ = [
    "DPO",
    "FSQ",
    "OPQ",
    "RQVAE",
    "Catalog",
    "Dataset",
    "Given",
    "ItemEmbeddings",
    "Letter",
    "PrepareConfig",
    "Protocol",
    "RQKMeans",
    "RandomCodes",
    "Recipe",
    "Recommender",
    "RunFolder",
    "RunSettings",
    "SemanticIds",
    "SidrecError",
    "__version__",
    "compare",
    "embed",
    "enrich",
    "evaluate",
    "inspect",
    "load_recipe",
    "load_semantic_ids",
    "prepare",
    "recommend",
    "run_recipe",
    "tokenize",
    "train",
    "tune",
]

_HOME = {
    "Catalog": "sidrec.data.catalog",
    "DPO": "sidrec.algorithms.dpo",
    "Dataset": "sidrec.data.dataset",
    "ItemEmbeddings": "sidrec.embeddings.base",
    "PrepareConfig": "sidrec.data.preparation",
    "Protocol": "sidrec.evaluation.protocol",
    "FSQ": "sidrec.tokenizers.fsq",
    "Given": "sidrec.tokenizers.given",
    "Letter": "sidrec.tokenizers.letter",
    "OPQ": "sidrec.tokenizers.opq",
    "RandomCodes": "sidrec.tokenizers.random_codes",
    "load_semantic_ids": "sidrec.stages.tokenize",
    "RQKMeans": "sidrec.tokenizers.rqkmeans",
    "RQVAE": "sidrec.tokenizers.rqvae",
    "Recipe": "sidrec.stages.recipe",
    "Recommender": "sidrec.recommenders.base",
    "RunFolder": "sidrec.stages.layout",
    "RunSettings": "sidrec.config",
    "SemanticIds": "sidrec.tokenizers.semantic_ids",
    "SidrecError": "sidrec.errors",
    "compare": "sidrec.stages.compare",
    "embed": "sidrec.stages.embed",
    "enrich": "sidrec.stages.enrich",
    "evaluate": "sidrec.stages.evaluate",
    "inspect": "sidrec.stages.inspect",
    "load_recipe": "sidrec.stages.recipe",
    "prepare": "sidrec.stages.prepare",
    "recommend": "sidrec.stages.recommend",
    "run_recipe": "sidrec.stages.run",
    "tokenize": "sidrec.stages.tokenize",
    "train": "sidrec.stages.train",
    "tune": "sidrec.stages.tune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sidrec' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
