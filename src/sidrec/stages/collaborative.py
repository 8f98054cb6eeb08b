"""Item vectors learnt from what users did: the item table of a recommender that is trained for it.

The one crossing by which vectors come from a recommender; it stands above both rooms. Only training events are
learnt from; validation events choose the checkpoint. An item without training events keeps a vector near its random
start. LETTER takes its collaborative vectors from a SASRec of 32 dimensions (2024, arXiv:2405.07314).
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import SerializeAsAny

from sidrec.config import Config, RunSettings, build, slot
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import Embedder, ItemEmbeddings, unit_length
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validation
from sidrec.recommenders.base import Recommender, RecommenderConfig
from sidrec.recommenders.sasrec import SASRec
from sidrec.training.config import TrainingConfig

__all__ = ["CollaborativeVectors"]


class CollaborativeVectors(Embedder):
    """Trains a recommender on the dataset and takes over its item vectors."""

    class Config(Config):
        """Vectors from what users did."""

        kind: Literal["collaborative"] = "collaborative"
        recommender: Annotated[SerializeAsAny[RecommenderConfig], slot("recommender")] = SASRec.Config(
            hidden_size=32, dropout=0.4
        )
        """What is trained; the size of its item vectors is that of the embeddings."""
        training: TrainingConfig = TrainingConfig(max_epochs=25, batch_size=128)
        """How long, and which checkpoint is kept."""
        normalize: bool = False
        """Scale vectors to length 1."""

    def embed_items(self, dataset: Dataset, run: RunSettings) -> ItemEmbeddings:
        """Vectors float32[N, D] of all items, in catalogue order.

        Raises:
            DataError: the recommender has no vectors of items.
        """
        config: CollaborativeVectors.Config = self.config
        recommender: Recommender = build("recommender", config.recommender)
        validate = validation(dataset, Protocol(k=(10,)), config.training, run)
        recommender.fit(dataset, config.training, run, validate=validate)
        vectors = np.ascontiguousarray(recommender.item_vectors(), np.float32)
        if config.normalize:
            vectors = unit_length(vectors)
        return ItemEmbeddings(vectors, f"item table of {config.recommender.kind}", dataset.catalog.digest)
