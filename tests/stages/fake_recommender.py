"""A recommender of five lines, trained by nobody, for tests of the stages."""

from typing import Literal

import numpy as np

from sidrec.artifact import create, open_artifact
from sidrec.decoding.recommendations import Recommendations
from sidrec.evaluation.protocol import Protocol
from sidrec.recommenders.base import Recommender, RecommenderConfig
from sidrec.training.config import TrainReport


class Cycle(Recommender):
    """Recommends the items that follow the last one in row order, `skip` of them left out."""

    class Config(RecommenderConfig):
        kind: Literal["tests.stages.fake_recommender:Cycle"] = "tests.stages.fake_recommender:Cycle"
        skip: int = 0

    def fit(self, dataset, training, run, *, semantic_ids=None, validate=None):
        self.catalog, self.semantic_ids = dataset.catalog, semantic_ids
        return TrainReport(0, 0.0, 0.0, 0.0, None, 0, ())

    def rank(self, histories, request, run):
        last = histories.rows[histories.offsets[1:] - 1]
        rows = (last[:, None] + 1 + self.config.skip + np.arange(request.k)) % len(self.catalog)
        scores = np.tile(-np.arange(request.k, dtype=np.float32), (len(rows), 1))
        return Recommendations(rows.astype(np.int32), scores, np.ones(len(rows), np.bool_))

    def save_weights(self, directory):
        (directory / "weights.txt").write_text("none")

    def load_weights(self, directory):
        assert (directory / "weights.txt").is_file()

    @property
    def num_parameters(self):
        return 1234


class GenerativeCycle(Cycle):
    """The same with semantic IDs."""

    needs_semantic_ids = True

    class Config(Cycle.Config):
        kind: Literal["tests.stages.fake_recommender:GenerativeCycle"] = "tests.stages.fake_recommender:GenerativeCycle"


def save_dataset(folder, dataset):
    with create(folder.dataset, kind="dataset", config={}) as writer:
        dataset.save(writer.path)
    return open_artifact(folder.dataset)


def save_recommender(folder, name, part, dataset, semantic_ids=None, protocol=None, parent=None):
    part.fit(dataset, None, None, semantic_ids=semantic_ids)
    config = {
        "recommender": part.config.model_dump(mode="json"),
        "evaluation": (protocol or Protocol()).model_dump(mode="json"),
    }
    parents = {"dataset": parent or open_artifact(folder.dataset)}
    with create(folder.recommender(name), kind="recommender", config=config, parents=parents) as writer:
        part.save(writer.path)
        writer.summary.update(train_seconds=12.5, parameters=part.num_parameters, report={})
    return folder.recommender(name)
