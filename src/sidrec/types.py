"""The id spaces and array types that every room shares.

Numbers, not text, are identity. An item has a caller's id, a row, a tuple of codes and, inside a
model with a vocabulary, token ids; each conversion exists once, beside its inverse:

- item id ↔ row: `sidrec.data.catalog.Catalog`
- row ↔ codes: `sidrec.tokenizers.semantic_ids.SemanticIds`
- code ↔ token id: `sidrec.tokenizers.vocabulary.CodeVocabulary`
- code path ↔ rows: `sidrec.decoding.trie.ItemTrie`

Legend for shapes, used as suffixes (`logits_BWK`): B batch · U users · T history · L level ·
K codes in a level · D width · W beams · N items · V vocabulary.
"""

from typing import Any, Literal, NewType

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "FloatArray", "IntArray", "ItemId", "Json", "Metric"]

ItemId = NewType("ItemId", str)
"""The caller's name of an item, as it stands in the caller's data."""

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

Json = dict[str, Any]
"""A JSON object."""

Metric = Literal["l2", "cosine", "dot"]
"""What makes a code the nearest: squared Euclidean distance, or the largest cosine or inner product."""
