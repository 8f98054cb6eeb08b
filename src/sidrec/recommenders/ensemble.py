"""Ensembles: trained recommenders of one catalogue that rank together, whatever their codes.

The members share items, not tokens: each puts forward its own best items, and each says how probable all of these are.
What is summed is `Recommender.log_probs`, by which a member itself ranks: of SASRec, normalised over the catalogue; of
one that writes semantic IDs, of the item's whole path, normalised as its `search.normalize` says. What such paths miss
to sum to 1 over the catalogue is one number a user, which raises or lowers all items alike. Items that share their
codes each have the probability of the path. Left out: members without log-probabilities, and training members here.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, DataError, nearest
from sidrec.progress import Silent
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.candidates import Candidates, lowest, union
from sidrec.recommenders.ensemble_weights import find_weights
from sidrec.recommenders.scored import counted_report
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["Ensemble", "EnsembleModel", "EnsembleModelConfig"]

FOLDER = "members"
USERS_AT_ONCE = 512
CANDIDATES_AT_ONCE = 2**22
"""Candidates held at once (16 MiB a member), which sets how many users are ranked together."""
DEEPENING = 4
"""Factor by which the lists grow for users whose own is not certified, where that is asked."""

MemberName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class EnsembleModelConfig(PreTrainedConfig):
    """Number of members."""

    model_type = "sidrec-ensemble"
    num_members: int = 1


class EnsembleModel(PreTrainedModel):
    """One weight a member, kept as `transformers` keeps weights."""

    config_class = EnsembleModelConfig

    def __init__(self, config: EnsembleModelConfig) -> None:
        super().__init__(config)
        self.weights = nn.Parameter(torch.full((config.num_members,), 1 / config.num_members), requires_grad=False)
        self.post_init()


class Ensemble(Recommender):
    """Ranks by the weighted sum of its members' log-probabilities, over the items that any of them puts forward."""

    class Config(RecommenderConfig):
        """Who the members are, how much each counts, and how many items it puts forward."""

        kind: Literal["ensemble"] = "ensemble"  # type: ignore[assignment]  # narrows the family's field
        members: tuple[MemberName, ...]
        """Names of trained recommenders of the run, at least two; of any kinds that give log-probabilities."""
        weights: Literal["equal", "validation"] | tuple[Annotated[float, Field(gt=0)], ...] = "equal"
        """How much each member counts: `equal`, one number a member (scaled to sum 1), or `validation`, which takes
        what does best on validation users. Test users are never looked at."""
        candidates: Annotated[int, Field(ge=1)] | Literal["all"] = 50
        """Items that each member puts forward for a user, raised to k where it is smaller. With `all`, or where
        every member scores all items at once, the whole catalogue is ranked."""

        @field_validator("members")
        @classmethod
        def _several(cls, names: tuple[str, ...]) -> tuple[str, ...]:
            if len(names) < 2:
                raise ValueError(f"an ensemble has at least two members, got {', '.join(names) or 'none'}")
            if len(set(names)) < len(names):
                raise ValueError(f"a member stands twice in {', '.join(names)}; weights say how much each counts")
            return names

        @model_validator(mode="after")
        def _one_weight_each(self) -> Self:
            if not isinstance(self.weights, str) and len(self.weights) != len(self.members):
                raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
            return self

    model_class = EnsembleModel
    model: EnsembleModel
    members: tuple[Recommender, ...] = ()
    """The members, in the order of `config.members`."""
    _kept: dict[tuple[object, ...], Candidates] | None = None
    """Candidates of validation users while weights are fitted, so that members are asked once."""

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the members."""
        return self.config.members

    @property
    def training_fields(self) -> set[str]:
        """How many validation users weights are found by; nothing where weights are given."""
        return {"validate_users"} if self.config.weights == "validation" else set()

    @property
    def weights(self) -> FloatArray:
        """float64[J], how much each member counts; of sum 1."""
        return self.model.weights.detach().cpu().numpy().astype(np.float64)

    @property
    def num_parameters(self) -> int:
        """Learnt values of all members, and one weight each."""
        return super().num_parameters + sum(member.num_parameters for member in self.members)

    @property
    def max_ties(self) -> int:
        """Largest number of items that necessarily share a score: those that no member tells apart, at most."""
        return min((member.max_ties for member in self.members), default=1)

    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        item_embeddings: ItemEmbeddings | None = None,
        validate: Validate | None = None,
        members: Mapping[str, Recommender] | None = None,
    ) -> TrainReport:
        """Put the members together; weights are set, or found on validation users. No member is trained.

        Raises:
            ConfigError: weights are to be found by a loss, which an ensemble does not have.
            DataError: a member is missing, is of another catalogue, or gives no log-probabilities; or weights are to
                be found on validation users and there are none.
        """
        given = self.config.weights
        if given == "validation" and training.select == "loss":
            raise ConfigError(
                "training.select: an ensemble has no loss; its weights are found by the primary metric",
                next="leave out training.select=loss, or set recommender.weights to equal or to numbers",
            )
        started = time.perf_counter()
        self.members = tuple(_checked(name, members or {}, dataset.catalog) for name in self.config.members)
        self.catalog = dataset.catalog
        self.model = EnsembleModel(EnsembleModelConfig(num_members=len(self.members))).eval()
        if not isinstance(given, str):
            self._weigh(np.array(given) / np.sum(given))
        if given != "validation":
            return self._report(started)
        if validate is None:
            raise DataError(
                "there are no validation users, by whom weights could be found",
                where=f"split '{dataset.split.name}'",
                next="set recommender.weights to equal or to numbers, or prepare the dataset with a validation part",
            )
        start, best = self._fit_weights(validate)
        return replace(self._report(started), best_metric=best, start_metric=start, trained_metric=best)

    def _report(self, started: float) -> TrainReport:
        report = counted_report(0, time.perf_counter() - started)
        return replace(report, member_weights=tuple(self.weights.round(12).tolist()))

    def _weigh(self, weights_J: FloatArray) -> None:
        self.model.weights.copy_(torch.from_numpy(weights_J))

    def _fit_weights(self, validate: Validate) -> tuple[float, float]:
        """Set the best weights; the primary metric of equal ones and of these."""

        def score(weights_J: FloatArray) -> float:
            self._weigh(weights_J)
            return next(iter(validate(self).values()))

        self._kept = {}
        try:
            found = find_weights(len(self.members), score)
        finally:
            self._kept = None
        self._weigh(found.weights)
        return found.start, found.value

    def search_for(self, request: Request) -> BeamConfig | None:
        """The search by which the first member that needs one finds its candidates; None where all items are scored."""
        width = self._width(request.k)
        if width >= len(self.catalog):
            return None
        searches = (member.search_for(replace(request, k=width)) for member in self.members)
        return next((search for search in searches if search is not None), None)

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The items with the largest weighted sums of log-probabilities, of all that any member puts forward.

        A list is exact if no item outside could have reached its last place, by the threshold of
        `sidrec.recommenders.candidates`. With `request.exact` members put forward more until that is so.
        """
        filters = request.filters(len(histories), len(self.catalog))
        request, width = replace(request, allowed=filters, denied=None), self._width(request.k)
        found = self._listed(histories, request, width, run)
        while request.exact and not found.exact.all():
            width = min(width * DEEPENING, len(self.catalog))
            users = np.flatnonzero(~found.exact)
            deeper = self._listed(histories.take(users), _of_users(request, users), width, run)
            found.rows[users], found.scores[users], found.exact[users] = deeper.rows, deeper.scores, deeper.exact
        return found

    def _width(self, k: int) -> int:
        """Items that each member puts forward, or the whole catalogue."""
        num_items, wanted = len(self.catalog), self.config.candidates
        # While weights are fitted, lists stand for the catalogue: all of it would be too much to keep.
        scores_all = self._kept is None and all(member.search_for(Request()) is None for member in self.members)
        return num_items if wanted == "all" or scores_all else min(max(wanted, k), num_items)

    def _listed(self, histories: Histories, request: Request, width: int, run: RunSettings) -> Recommendations:
        """The lists from members' lists of one width, some users after the others."""
        size = CANDIDATES_AT_ONCE // min(width * len(self.members), len(self.catalog))
        size = max(1, min(USERS_AT_ONCE, size))
        quiet, parts = replace(run, progress=Silent()), [Recommendations.empty(request.k)]
        with run.progress("recommend", len(histories)) as advance:
            for first in range(0, len(histories), size):
                users = np.arange(first, min(first + size, len(histories)))
                candidates = self._candidates(histories.take(users), _of_users(request, users), width, quiet)
                parts.append(candidates.ranked(self.weights, request.k))
                advance(len(users))
        return Recommendations.concatenate(parts)

    def _candidates(self, histories: Histories, request: Request, width: int, run: RunSettings) -> Candidates:
        """What the members put forward, or did when they were asked the same for other weights."""
        if self._kept is None or request.allowed is not None:
            return self._asked(histories, request, width, run)
        users = None if histories.users is None else histories.users.tobytes()
        lists = (histories.offsets.tobytes(), histories.rows.tobytes(), users)
        key = (width, request.exclude_seen, request.exact, *lists)
        if key not in self._kept:
            self._kept[key] = self._asked(histories, request, width, run)
        return self._kept[key]

    def _asked(self, histories: Histories, request: Request, width: int, run: RunSettings) -> Candidates:
        """Ask the members for items, then all of them about each."""
        num_users, num_items = len(histories), len(self.catalog)
        bounds_JU, complete_U = np.zeros((len(self.members), num_users)), np.zeros(num_users, np.bool_)
        if width >= num_items:
            rows_UC = np.where(_may_get(histories, request, num_items), np.arange(num_items, dtype=np.int32), -1)
            return Candidates(rows_UC, self._log_probs(histories, rows_UC, run), bounds_JU, ~complete_U)
        wider = replace(request, k=width)
        lists = [member.rank(histories, wider, run) for member in self.members]
        rows_UC = union([found.rows for found in lists])
        logps = self._log_probs(histories, rows_UC, run)
        for member, found, logp_UC, bound_U in zip(self.members, lists, logps, bounds_JU, strict=True):
            exact_U = found.exact & _certifies(member, wider)
            bound_U[exact_U] = lowest(found.rows, rows_UC, logp_UC)[exact_U]
            # A certified list that is not full holds all that the user may get.
            complete_U |= exact_U & (found.rows[:, -1] < 0)
        return Candidates(rows_UC, logps, bounds_JU, complete_U)

    def _log_probs(self, histories: Histories, rows_UC: IntArray, run: RunSettings) -> list[FloatArray]:
        """For each member its log-probabilities float32[U, C] of the candidates."""
        asked_UC = np.maximum(rows_UC, 0).astype(np.int64)
        return [member.score_items(histories, asked_UC, run) for member in self.members]

    def save_weights(self, directory: Path) -> None:
        """Write the weights of the members as a Hugging Face directory, and every member whole beside them."""
        super().save_weights(directory)
        for name, member in zip(self.config.members, self.members, strict=True):
            home = directory / FOLDER / name
            home.mkdir(parents=True)
            member.save(home)

    def load_weights(self, directory: Path) -> None:
        """Read what `save_weights` wrote."""
        super().load_weights(directory)
        homes = [directory / FOLDER / name for name in self.config.members]
        self.members = tuple(Recommender.from_directory(home) for home in homes)


def _checked(name: str, members: Mapping[str, Recommender], catalog: Catalog) -> Recommender:
    """The member of a name.

    Raises:
        DataError: it is missing, is of another catalogue, or gives no log-probabilities.
    """
    if name not in members:
        raise DataError(
            f"there is no recommender '{name}' to put into the ensemble",
            where="recommender.members",
            expected=f"trained recommenders; {nearest(name, members)}",
            next="train the members with 'sidrec train', and the ensemble in the same run",
        )
    member = members[name]
    if member.catalog.digest != catalog.digest:
        raise DataError(
            f"the member '{name}' is of another catalogue",
            where=f"it has {len(member.catalog)} items of catalogue {member.catalog.digest[:12]}, the ensemble "
            f"{len(catalog)} of {catalog.digest[:12]}",
            expected="members trained on the same dataset",
            next="train it again",
        )
    try:
        with torch.no_grad():
            member.log_probs(Histories.of([[0]]), np.zeros((1, 1), np.int64))
    except DataError as error:
        raise DataError(
            f"'{name}' cannot be a member: it gives no log-probabilities",
            where=error.what,
            expected="recommenders that learn by gradients, such as sasrec, tiger or decoder",
            next="leave it out of recommender.members",
        ) from error
    return member


def _certifies(member: Recommender, request: Request) -> bool:
    """Whether a member's certificate speaks of the very numbers that are summed.

    A search of rounded weights, of another normalisation, or over the children that exclusions leave, orders items by
    other ones.
    """
    search, own = member.search_for(request), member.search_for(Request())
    if search is None or own is None:
        return True
    return search.precision == "fp32" and search.normalize == own.normalize != "children"


def _of_users(request: Request, users: IntArray) -> Request:
    """The request for some of its users; its lists are those of each user, or none."""
    lists = request.allowed
    if not isinstance(lists, Filters):
        return request
    return replace(request, allowed=Filters(lists.masks, lists.of_user[users]))


def _may_get(histories: Histories, request: Request, num_items: int) -> BoolArray:
    """bool[U, N], the items that each user may get."""
    may_UN = np.ones((len(histories), num_items), np.bool_)
    if isinstance(request.allowed, Filters):
        may_UN &= request.allowed.of_users(np.arange(len(histories)))
    if request.exclude_seen:
        may_UN[histories.owners, histories.rows] = False
    return may_UN
