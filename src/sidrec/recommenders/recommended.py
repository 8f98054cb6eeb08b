"""What people and programs outside read: lists of items by id and title. Leaves out how they are found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import overload

from sidrec.data.catalog import Catalog
from sidrec.decoding.recommendations import Recommendations
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import Json

__all__ = ["Recommended", "RecommendedList"]


@dataclass(frozen=True)
class Recommended:
    """One recommended item.

    Attributes:
        item: its id.
        score: higher is better; comparable within one list only.
        title: its title, or its id where it has none.
        semantic_id: its codes as people read them; empty for recommenders without semantic IDs.
    """

    item: str
    score: float
    title: str
    semantic_id: str = ""


@dataclass(frozen=True)
class RecommendedList(Sequence[Recommended]):
    """The list of one user: a sequence of items, best first, that knows whether it is exact.

    Attributes:
        items: best first; fewer than asked where the user has fewer candidates.
        exact: whether the list is known to be the true top k of the whole catalogue.

    >>> found = RecommendedList((Recommended("a", -0.5, "Alpha"), Recommended("b", -0.7, "Beta")), exact=True)
    >>> [item.title for item in found], found[0].item, found.exact
    (['Alpha', 'Beta'], 'a', True)
    """

    items: tuple[Recommended, ...]
    exact: bool

    @classmethod
    def of(cls, ranked: Recommendations, catalog: Catalog, semantic_ids: SemanticIds | None) -> "list[RecommendedList]":
        """Rows and scores of every user with the ids, titles and codes that they stand for."""
        lists: list[RecommendedList] = []
        for user_rows, user_scores, exact in zip(ranked.rows, ranked.scores, ranked.exact, strict=True):
            rows, scores = user_rows[user_rows >= 0], user_scores[user_rows >= 0]
            codes = ["" if semantic_ids is None else semantic_ids.text(int(row)) for row in rows]
            fields = zip(catalog.ids_of(rows), scores, catalog.titles_of(rows), codes, strict=True)
            items = (Recommended(str(item), float(score), title, code) for item, score, title, code in fields)
            lists.append(cls(tuple(items), bool(exact)))
        return lists

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Recommended: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Recommended, ...]: ...
    def __getitem__(self, index: int | slice) -> Recommended | tuple[Recommended, ...]:
        return self.items[index]

    def as_json(self) -> Json:
        """The list as JSON: `items` and `exact`."""
        return asdict(self)
