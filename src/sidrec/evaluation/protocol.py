"""The rules of an evaluation: one object, printed on every report; nothing else may choose them.

Every recommender is scored on the whole catalogue (no sampled negatives) and reads the user's whole
earlier history, of which it takes the newest part that it was built for.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sidrec.config import Config
from sidrec.decoding.recommendations import BeamConfig

__all__ = ["METRICS", "Protocol", "ScoredPart", "SliceConfig"]

ScoredPart = Literal["valid", "test"]
"""The parts of a split whose targets are scored."""

METRICS = ("hit", "recall", "ndcg", "mrr")
"""Per-user metrics, each reported as `metric@k`."""


class SliceConfig(Config):
    """How users are cut into groups that are reported apart."""

    history_edges: tuple[int, ...] = ()
    """Largest history length of each group but the last; empty cuts at the quartiles of the users."""
    head_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the items seen in training, most frequent first, that are "head"."""
    tail_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the items seen in training, rarest first, that are "tail"; the rest is "mid"."""

    @model_validator(mode="after")
    def _shares_fit(self) -> "SliceConfig":
        if self.head_share + self.tail_share > 1:
            raise ValueError(f"head_share {self.head_share} and tail_share {self.tail_share} exceed 1 together")
        if list(self.history_edges) != sorted(set(self.history_edges)):
            raise ValueError(f"history_edges {self.history_edges} do not rise")
        return self


class Protocol(Config):
    """The rules under which recommenders are compared.

    >>> Protocol(k=(10,)).names
    ('hit@10', 'recall@10', 'ndcg@10', 'mrr@10')
    """

    k: tuple[int, ...] = (1, 5, 10, 20)
    """Cut-offs of the lists."""
    primary: str = "ndcg@10"
    """The metric by which checkpoints are chosen and recommenders are ordered."""
    exclude_seen: bool = True
    """Never recommend an item of the user's own history."""
    ties: Literal["expected", "listed"] = "expected"
    """Items of equal score: `expected` takes the mean over all orders of them, `listed` the order given."""
    exact: bool = False
    """Go on with what each search dropped until its list is certified to be the true top k."""
    search: BeamConfig | None = None
    """How generative recommenders search; without it, each as its own settings say. Validation during
    training always searches as the recommender itself does, so that this needs no new training."""
    max_users: int = Field(default=0, ge=0)
    """Examples scored (under leave-one-out one a user), drawn once by the run's seed; 0 means all."""
    slices: SliceConfig = SliceConfig()
    """Groups of users that are reported apart."""

    @field_validator("k")
    @classmethod
    def _rising(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or min(k) < 1:
            raise ValueError(f"cut-offs must be at least 1, got {list(k)}")
        return tuple(sorted(set(k)))

    @model_validator(mode="after")
    def _primary_is_computed(self) -> "Protocol":
        if self.primary not in self.names:
            raise ValueError(f"primary '{self.primary}' is not among {', '.join(self.names)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the per-user metrics, `metric@k`."""
        return tuple(f"{metric}@{k}" for k in self.k for metric in METRICS)

    def describe(self, split: str = "", part: str = "", search: BeamConfig | None = None) -> str:
        """The rules in one line, as printed on every report.

        Args:
            split: name of the dataset's split.
            part: `valid` or `test`.
            search: how the scored recommender searched; None takes what the rules say about it.
        """
        search = search or self.search
        seen = "seen items excluded" if self.exclude_seen else "seen items allowed"
        ties = "mean over all orders" if self.ties == "expected" else "order of the list"
        parts = [
            f"split: {split}" if split else "",
            f"part: {part}" if part else "",
            "history: all earlier events",
            seen,
            f"ties: {ties}",
            f"k = {', '.join(map(str, self.k))}",
            f"users: {self.max_users} drawn" if self.max_users else "users: all",
            "scoring: whole catalogue",
            f"search: {search.describe()}" if search else "",
            "searched until lists are certified exact" if self.exact else "",
            f"primary: {self.primary}",
        ]
        return " · ".join(text for text in parts if text)
