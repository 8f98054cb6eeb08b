"""The names of columns, written once."""

from typing import Final

__all__ = ["Columns"]


class Columns:
    """Column names of every table that the library reads or writes."""

    USER: Final = "user_id"
    ITEM: Final = "item_id"
    TIME: Final = "timestamp"
    """Any integer or float that orders events; seconds or milliseconds since 1970 where known."""
    RATING: Final = "rating"
    HISTORY: Final = "history"
    TARGET: Final = "target"
    PART: Final = "part"
    """`train`, `valid` or `test`."""
    TITLE: Final = "title"
    DESCRIPTION: Final = "description"
    IMAGE: Final = "image"
    ITEMS: Final = "items"
    """The ids of a recommended list, best first."""
    SCORES: Final = "scores"
    """Of the items of such a list."""
    EXACT: Final = "exact"
    """Whether such a list is the true top of the catalogue."""
