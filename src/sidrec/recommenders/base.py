"""The interface of every recommender: fit, rank, save, load. Rows inside, item ids outside."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from sidrec.artifact import open_artifact
from sidrec.config import Config, Part, RunSettings, parse
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.recommenders.recommended import RecommendedList
from sidrec.registry import load_class
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.types import BoolArray, FloatArray, IntArray, Json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Recommender", "RecommenderConfig", "Validate"]

FILE = "recommender.json"
SCORES_AT_ONCE = 2**22
"""Scores of all items of a batch of users that `score_items` lets a recommender compute at once."""

Validate = Callable[["Recommender"], dict[str, float]]
"""Scores a recommender on validation users: name → value. The first is that by which states are chosen: the primary
metric, or with `training.select` "loss" the loss."""


class RecommenderConfig(Config):
    """Fields that every recommender has."""

    kind: str


class Recommender(Part, ABC):
    """Histories → next items.

    A recommender directory holds everything that is needed to serve: the catalogue, the semantic
    IDs if there are any, and weights that are a valid Hugging Face directory.
    """

    needs_semantic_ids: ClassVar[bool] = False
    """Whether `fit` needs a table of semantic IDs."""

    learns_by_gradient: ClassVar[bool] = True
    """Whether training settings, validation and seed decide what `fit` makes; false for counting methods."""

    model_class: ClassVar[type[Any]]
    """The transformers class of the weights, or an auto class that finds it."""

    model: Any
    """The weights, of `model_class`; set by `fit` and by loading."""
    semantic_ids: SemanticIds | None = None
    """The codes that the recommender writes; None for those that need none."""
    _catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The items that it was fitted on.

        Raises:
            DataError: the recommender was neither fitted nor loaded.
        """
        if self._catalog is None:
            raise self.unfitted()
        return self._catalog

    @catalog.setter
    def catalog(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def unfitted(self) -> DataError:
        """The error of a use that needs a fitted recommender."""
        return DataError(f"this '{self.config.kind}' was never fitted", next="call fit, or use Recommender.load")

    @property
    def needs_item_embeddings(self) -> bool:
        """Whether `fit` needs vectors of the items."""
        return False

    @property
    def training_fields(self) -> set[str]:
        """Fields of the training settings that decide what `fit` makes; if none, validation and seed do not either."""
        return set(TrainingConfig.model_fields) if self.learns_by_gradient else set()

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the trained recommenders of the run that `fit` puts together."""
        return ()

    @abstractmethod
    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        item_embeddings: ItemEmbeddings | None = None,
        validate: Validate | None = None,
        members: "Mapping[str, Recommender] | None" = None,
    ) -> TrainReport:
        """Learn from the training examples of a dataset; keep the state that validated best.

        Sets `catalog` and `model`, and `semantic_ids` if they are needed. Only `dataset.training_events()`
        may be learnt from.

        Args:
            dataset: catalogue, histories and split.
            training: how long and how.
            run: seed, device, progress, scratch.
            semantic_ids: codes of the items; those that need none pass them over.
            item_embeddings: vectors of the items; those that need none pass them over.
            validate: scores the recommender as it is now.
            members: trained recommenders by name; those that are made of none pass them over.
        """

    @abstractmethod
    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The best items of every history (whole histories: the model cuts them itself).

        Deterministic. An empty history is legal and gets the model's best guess.
        """

    def extended(self, catalog: Catalog, semantic_ids: SemanticIds) -> Self:
        """A recommender that recommends new items too, without training; this one stays as it is.

        Args:
            catalog: the items of this recommender and the new ones behind them.
            semantic_ids: of all of them; the old ones have the codes that this recommender writes.

        Raises:
            DataError: this kind of recommender cannot, or the items or codes do not extend its own.
        """
        del catalog, semantic_ids
        raise DataError(
            f"'{self.config.kind}' cannot recommend items that it was not trained on: it scores items by what it "
            "learnt about each of them, which for new ones is nothing",
            expected="a recommender that writes semantic IDs, such as tiger or decoder",
            next="train it again on a dataset that holds the new items",
        )

    def search_for(self, request: Request) -> BeamConfig | None:
        """The search by which `rank` answers a request; None for recommenders that score all items."""
        return None

    def save_weights(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory.

        Raises:
            ArtifactError: this is not the first process of a distributed run; transformers writes none in the others.
        """
        self.model.save_pretrained(directory)
        if not any(directory.glob("model*.safetensors")):
            raise ArtifactError(
                "no weights were written, which only the first process of a distributed run does",
                where=str(directory),
                next="save the recommender in that process, or start one process alone",
            )

    def load_weights(self, directory: Path) -> None:
        """Read what `save_weights` wrote; `config`, `catalog` and `semantic_ids` are set already."""
        loaded: Any = self.model_class.from_pretrained(directory, local_files_only=True)
        self.model = loaded.eval()

    @property
    def num_parameters(self) -> int:
        """Number of learnt values; tied ones count once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @contextmanager
    def evaluating(self, run: RunSettings) -> Generator[Any]:
        """The model on the run's device, without dropout and gradients; its mode is put back afterwards.

        Raises:
            DataError: the recommender was neither fitted nor loaded.
        """
        import torch

        _ = self.catalog
        model = self.model
        was_training = model.training
        model.to(run.torch_device()).eval()
        try:
            with torch.no_grad():
                yield model
        finally:
            model.train(was_training)

    def item_vectors(self) -> FloatArray:
        """The learnt vectors float32[N, D] of the items, in catalogue order.

        Raises:
            DataError: this kind of recommender has none, or was neither fitted nor loaded.
        """
        raise DataError(
            f"a recommender of kind '{self.config.kind}' has no vectors of items",
            expected="one with a table of items, such as 'sasrec'",
        )

    def log_probs(self, histories: Histories, rows_BM: IntArray) -> "Tensor":
        """Log-probabilities float32[B, M] of items as each history's next one, with gradients.

        They are those by which `rank` orders items, of the same inputs: whole histories, which the model cuts
        itself. Computed with dropout if the model is in training mode, on the device of the model.

        Args:
            histories: B of them.
            rows_BM: int[B, M], item rows.

        Raises:
            DataError: this kind of recommender has none, or was neither fitted nor loaded.
        """
        del histories, rows_BM
        raise DataError(
            f"a recommender of kind '{self.config.kind}' gives no log-probabilities of items",
            expected="one that learns by gradients, such as 'sasrec' or 'tiger'",
        )

    def score_items(self, histories: Histories, rows_UM: IntArray, run: RunSettings) -> FloatArray:
        """The values float32[U, M] of `log_probs` as ranking needs them: in batches, without gradients and dropout.

        Arguments and errors are those of `log_probs`; the device is the run's.
        """
        out_UM = np.empty(rows_UM.shape, np.float32)
        by_length = np.argsort(histories.lengths, kind="stable")
        size = max(1, SCORES_AT_ONCE // len(self.catalog))
        with self.evaluating(run):
            for start in range(0, len(by_length), size):
                users = by_length[start : start + size]
                out_UM[users] = self.log_probs(histories.take(users), rows_UM[users]).float().cpu().numpy()
        return out_UM

    def mean_loss(self, dataset: Dataset, pairs: Examples, run: RunSettings) -> float:
        """Mean of the training objective over targets, without dropout; lower is better.

        Inputs, labels and objective are those of training, a temperature included.

        Args:
            dataset: of this recommender's catalogue.
            pairs: which (user, cut) are asked about; at least one.
            run: seed, of negatives that are drawn, and device.

        Raises:
            DataError: this kind learns by counting, or was neither fitted nor loaded.
        """
        del dataset, pairs, run
        raise DataError(
            f"a recommender of kind '{self.config.kind}' has no loss",
            expected="one that learns by gradients, such as 'sasrec' or 'tiger'",
        )

    @property
    def max_ties(self) -> int:
        """Largest number of items that necessarily share a score (items with equal codes)."""
        return 1 if self.semantic_ids is None else self.semantic_ids.largest_group

    def recommend(
        self,
        histories: Iterable[Sequence[str]],
        k: int = 10,
        *,
        users: Iterable[str | None] | None = None,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        denied: Iterable[str] | None = None,
        exact: bool = False,
        on_unknown: Literal["raise", "skip"] = "raise",
        run: RunSettings = RunSettings(),
    ) -> list[RecommendedList]:
        """The k best next items of each history of item ids (oldest first).

        Args:
            histories: item ids of each user.
            k: items a user.
            users: id of each user, or None for one who is not known; only recommenders with user tokens read them.
            exclude_seen: never recommend an item of the same history.
            allowed: ids of the items that may be recommended; None means all.
            denied: ids of items that must not be: out of stock, say.
            exact: search on until every list is certified to be the true top k.
            on_unknown: what to do with ids that are not in the catalogue.
            run: device and progress display.

        Returns:
            For each history a sequence of `Recommended`, best first, with its certificate `exact`.

        Raises:
            DataError: the recommender was never fitted, there is not one user a history, or an id is unknown: one of
                a list, or one of a history where `on_unknown` is "raise".
            ConstraintError: the lists leave no item.
        """
        request = self.request(k, exclude_seen=exclude_seen, allowed=allowed, denied=denied, exact=exact)
        skip = on_unknown == "skip"
        rows = [self._rows(items, f"history {number}", skip) for number, items in enumerate(histories, start=1)]
        return RecommendedList.of(self.rank(Histories.of(rows, users), request, run), self.catalog, self.semantic_ids)

    def request(
        self,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allowed: Iterable[str] | None = None,
        denied: Iterable[str] | None = None,
        exact: bool = False,
    ) -> Request:
        """What `rank` is asked, with lists of item ids as masks of rows; arguments and errors are those of `recommend`.

        For those who rank batch after batch: the lists are read once.
        """
        masks = [self._mask(allowed, "allowed"), self._mask(denied, "denied")]
        return Request(k=k, exclude_seen=exclude_seen, allowed=masks[0], exact=exact, denied=masks[1])

    def _mask(self, ids: Iterable[str] | None, where: str) -> BoolArray | None:
        """bool[N], the items of a list."""
        if ids is None:
            return None
        mask = np.zeros(len(self.catalog), dtype=np.bool_)
        mask[self._rows(ids, where)] = True
        return mask

    def _rows(self, ids: Iterable[str], where: str, skip_unknown: bool = False) -> IntArray:
        """Rows of item ids that came from outside."""
        if isinstance(ids, str):
            raise DataError(f"'{ids}' is one string", where=where, expected="a list of item ids")
        return self.catalog.rows(filter(self.catalog.knows, ids) if skip_unknown else ids, where)

    def save(self, directory: Path) -> None:
        """Write all of the recommender's files into a directory (inside `artifact.create`)."""
        from sidrec.training.isolation import silent_transformers

        self.catalog.save(directory)
        with silent_transformers():
            self.save_weights(directory)
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
            raise ConfigError(
                f"{directory} holds a '{fields['kind']}', not a {cls.__name__}", next="use Recommender.load"
            )
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

    def require_embeddings(self, item_embeddings: ItemEmbeddings | None, catalog: Catalog) -> ItemEmbeddings:
        """The vectors of the items, checked to be those of the catalogue.

        Raises:
            DataError: there are none, or they belong to another catalogue.
        """
        if item_embeddings is None:
            raise DataError(f"this '{self.config.kind}' starts from vectors", next="make them with 'sidrec embed'")
        item_embeddings.check_fits(catalog)
        return item_embeddings
