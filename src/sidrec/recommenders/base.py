"""The interface of every recommender: fit, rank, save, load. Rows inside, item ids outside."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from sidrec.artifact import open_artifact
from sidrec.config import Config, Part, RunSettings, parse
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.errors import ConfigError, DataError
from sidrec.registry import load_class
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.types import Json

__all__ = ["Recommended", "Recommender", "RecommenderConfig", "Validate"]

FILE = "recommender.json"

Validate = Callable[["Recommender"], dict[str, float]]
"""Scores a recommender on validation users: metric name → value, the primary metric first."""


class RecommenderConfig(Config):
    """Fields that every recommender has."""

    kind: str


@dataclass(frozen=True)
class Recommended:
    """One recommended item: its id and its score (higher is better)."""

    item: str
    score: float


class Recommender(Part, ABC):
    """Histories → next items.

    A recommender directory holds everything that is needed to serve: the catalogue, the semantic
    IDs if there are any, and weights that are a valid Hugging Face directory.
    """

    needs_semantic_ids: ClassVar[bool] = False
    """Whether `fit` needs a table of semantic IDs."""

    catalog: Catalog
    semantic_ids: SemanticIds | None = None

    @abstractmethod
    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        validate: Validate | None = None,
    ) -> TrainReport:
        """Learn from the training examples of a dataset; keep the state that validated best.

        Sets `catalog` and `semantic_ids`. Only `dataset.split.train` targets may be learnt from.
        """

    @abstractmethod
    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The best items of every history (whole histories: the model cuts them itself).

        Deterministic. An empty history is legal and gets the model's best guess.
        """

    @abstractmethod
    def save_weights(self, directory: Path) -> None:
        """Write the weights into a directory as `transformers` does."""

    @abstractmethod
    def load_weights(self, directory: Path) -> None:
        """Read what `save_weights` wrote; `config`, `catalog` and `semantic_ids` are set already."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of learnt values (counts and similarities of the baselines included)."""

    @property
    def max_ties(self) -> int:
        """Largest number of items that necessarily share a score (items with equal codes)."""
        return 1 if self.semantic_ids is None else self.semantic_ids.largest_group

    def recommend(
        self,
        histories: Iterable[Sequence[str]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        exact: bool = False,
        on_unknown: Literal["raise", "skip"] = "raise",
        run: RunSettings = RunSettings(),
    ) -> list[list[Recommended]]:
        """The k best next items of each history of item ids (oldest first).

        Args:
            histories: item ids of each user.
            k: items a user.
            exclude_seen: never recommend an item of the same history.
            allowed: ids of the items that may be recommended; None means all.
            exact: widen the search until every list is certified to be the true top k.
            on_unknown: what to do with ids that are not in the catalogue.
            run: device and progress display.

        Raises:
            DataError: an id is unknown and `on_unknown` is "raise".
        """
        lists = [list(history) for history in histories]
        if on_unknown == "skip":
            lists = [[item for item in items if self.catalog.knows(item)] for items in lists]
        mask = None
        if allowed is not None:
            mask = np.zeros(len(self.catalog), dtype=np.bool_)
            mask[self.catalog.rows(allowed)] = True
        request = Request(k=k, exclude_seen=exclude_seen, allowed=mask, exact=exact)
        ranked = self.rank(Histories.of(self.catalog.rows(items) for items in lists), request, run)
        return [
            [
                Recommended(str(self.catalog.ids[int(row)]), float(score))
                for row, score in zip(rows, scores, strict=True)
                if row >= 0
            ]
            for rows, scores in zip(ranked.rows, ranked.scores, strict=True)
        ]

    def save(self, directory: Path) -> None:
        """Write all of the recommender's files into a directory (inside `artifact.create`)."""
        from sidrec.training.isolation import silent_transformers

        with silent_transformers():
            self.save_weights(directory)
        self.catalog.save(directory)
        if self.semantic_ids is not None:
            self.semantic_ids.save(directory, self.catalog)
        config: Json = self.config.model_dump(mode="json")
        (directory / FILE).write_text(json.dumps(config, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Rebuild a recommender from its directory; no other path is needed.

        Raises:
            ArtifactError: the directory is missing, damaged or something else.
            DataError: the semantic IDs are of another catalogue.
        """
        return cls.from_directory(open_artifact(path, "recommender").path)

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Rebuild a recommender from the files of `save`, without the artefact's checks."""
        from sidrec.training.isolation import silent_transformers

        fields = json.loads((directory / FILE).read_text(encoding="utf-8"))
        found: Any = load_class("recommender", fields["kind"])
        if not issubclass(found, cls):
            raise ConfigError(f"{directory} holds a '{fields['kind']}', not a {cls.__name__}")
        recommender = found(parse(found.Config, fields, where=str(directory / FILE)))
        recommender.catalog = Catalog.load(directory)
        if found.needs_semantic_ids:
            recommender.semantic_ids = SemanticIds.load(directory)
            recommender.semantic_ids.check_fits(recommender.catalog)
        with silent_transformers():
            recommender.load_weights(directory)
        return recommender

    def require_ids(self, semantic_ids: SemanticIds | None, catalog: Catalog) -> SemanticIds:
        """The semantic IDs, checked to be those of the catalogue.

        Raises:
            DataError: there are none, or they belong to another catalogue.
        """
        if semantic_ids is None:
            raise DataError(f"'{self.config.kind}' needs semantic IDs", next="make them with 'sidrec tokenize'")
        semantic_ids.check_fits(catalog)
        return semantic_ids
