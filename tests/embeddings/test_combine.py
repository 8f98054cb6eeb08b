import numpy as np
import polars as pl

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.combine import CombinedVectors
from sidrec.testing.toy import cycle_dataset


def test_only_what_no_part_knows_is_missing() -> None:
    data = cycle_dataset(num_items=4)
    items = pl.DataFrame(
        {"item_id": list("abcd"), "title": ["red drum", "", "", "oboe"], "brand": ["", "Acme", "", "Best"]}
    )
    parts = [{"kind": "tfidf", "fields": [name], "dims": 2} for name in ("title", "brand")]
    found = CombinedVectors(parts=parts).embed_items(Dataset(Catalog(items), data.sequences, data.split), RunSettings())
    assert found.vectors.shape == (4, 4)
    assert found.missing.tolist() == [2]
    assert not np.any(found.vectors[2])
