"""The one table of everything that a recipe can name: family → kind → where its class lives.

Classes are imported when they are named, never before, so a recipe loads only what it uses. A class
of your own needs no line here: write its kind as `my_package.module:ClassName`.
"""

import importlib
from typing import Any

from sidrec.errors import ConfigError, nearest

__all__ = ["REGISTRY", "kinds_text", "load_class"]

REGISTRY: dict[str, dict[str, str]] = {
    "reader": {
        "letter": "sidrec.data.readers.letter:LetterReader",
        "recbole": "sidrec.data.readers.recbole:RecBoleReader",
        "movielens": "sidrec.data.readers.movielens:MovieLensReader",
        "amazon": "sidrec.data.readers.amazon:AmazonReader",
        "table": "sidrec.data.readers.table:TableReader",
        "list-csv": "sidrec.data.readers.list_csv:ListCsvReader",
        "minionerec": "sidrec.data.readers.minionerec:MiniOneRecReader",
        "etegrec": "sidrec.data.readers.etegrec:ETEGRecReader",
    },
    "split": {
        "leave-one-out": "sidrec.data.split:LeaveOneOut",
        "temporal": "sidrec.data.split:TemporalCut",
        "time-ratio": "sidrec.data.split:TimeRatio",
        "given": "sidrec.data.split:Given",
        "auto": "sidrec.data.split:Auto",
    },
    "embedder": {
        "tfidf": "sidrec.embeddings.tfidf:TfidfEmbedder",
        "text": "sidrec.embeddings.text:SentenceEmbedder",
        "import": "sidrec.embeddings.imported:ImportedVectors",
        "collaborative": "sidrec.stages.collaborative:CollaborativeVectors",
        "combine": "sidrec.embeddings.combine:CombinedVectors",
    },
    "source": {
        "steam": "sidrec.embeddings.enrich.steam:SteamDump",
        "wikipedia": "sidrec.embeddings.enrich.wikipedia:Wikipedia",
        "chat": "sidrec.embeddings.enrich.chat:ChatModel",
    },
    "tokenizer": {
        "auto": "sidrec.tokenizers.auto:Auto",
        "rqkmeans": "sidrec.tokenizers.rqkmeans:RQKMeans",
        "rqvae": "sidrec.tokenizers.rqvae:RQVAE",
        "letter": "sidrec.tokenizers.letter:Letter",
        "opq": "sidrec.tokenizers.opq:OPQ",
        "fsq": "sidrec.tokenizers.fsq:FSQ",
        "random": "sidrec.tokenizers.random_codes:RandomCodes",
        "given": "sidrec.tokenizers.given:Given",
    },
    "collision": {
        "append_level": "sidrec.tokenizers.counting:AppendLevel",
        "nearest_free": "sidrec.tokenizers.reassignment:NearestFree",
        "sinkhorn_reassign": "sidrec.tokenizers.reassignment:SinkhornReassign",
        "hashed_round_robin": "sidrec.tokenizers.counting:HashedRoundRobin",
        "keep": "sidrec.tokenizers.counting:Keep",
    },
    "recommender": {
        "popularity": "sidrec.recommenders.popularity:Popularity",
        "item-knn": "sidrec.recommenders.item_knn:ItemKNN",
        "sasrec": "sidrec.recommenders.sasrec:SASRec",
        "tiger": "sidrec.recommenders.tiger:Tiger",
        "decoder": "sidrec.recommenders.decoder:Decoder",
        "item-decoder": "sidrec.recommenders.item_decoder:ItemDecoder",
        "ensemble": "sidrec.recommenders.ensemble:Ensemble",
    },
    "algorithm": {
        "dpo": "sidrec.algorithms.dpo:DPO",
    },
    "pairs": {
        "neighbours": "sidrec.algorithms.neighbours:NeighbourPairs",
        "beams": "sidrec.algorithms.beams:BeamPairs",
        "file": "sidrec.algorithms.pair_file:FilePairs",
    },
}


def kinds_text(family: str) -> str:
    """The kinds of one family for people.

    >>> kinds_text("embedder")
    'tfidf, text, import, collaborative or combine'
    """
    *first, last = REGISTRY[family]
    return f"{', '.join(first)} or {last}" if first else last


def load_class(family_name: str, kind: str) -> Any:
    """The class that `kind` names in a family, imported now.

    Raises:
        ConfigError: the kind is not known, or a foreign class cannot be imported.
    """
    kinds = REGISTRY[family_name]
    target = kinds.get(kind, kind)
    module, separator, attribute = target.partition(":")
    if not separator:
        raise ConfigError(f"no {family_name} of kind '{kind}'; {nearest(kind, kinds)}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if kind in kinds:
            raise
        raise ConfigError(f"cannot import {family_name} '{kind}': {error}") from error
