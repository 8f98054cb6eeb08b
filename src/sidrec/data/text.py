"""Cleaning of item text as LC-Rec and LETTER do it before encoding.

Left out: language detection, lower-casing, stemming. Sentence encoders want text as people write it.
"""

import html
import re

import polars as pl

from sidrec.data.columns import Columns

__all__ = ["MAX_LENGTH", "clean_items", "clean_text"]

MAX_LENGTH = 2000
"""Texts of this many characters or more are emptied: the published data were made so."""

_TAG = re.compile(r"</?\w[^>]*>")
_DOTS = re.compile(r"\.*$")


def clean_text(text: str) -> str:
    r"""One field: entities resolved, tags, quotes and line breaks removed, one final dot.

    An empty text becomes "." and a text of 2,000 characters or more becomes "" (LC-Rec's rules).

    >>> clean_text('Strings &amp; <b>things</b> "new"\n...'), clean_text("")
    ('Strings & things new.', '.')
    """
    plain = _TAG.sub("", html.unescape(text)).replace('"', "").replace("\n", "").replace("\r", "").strip()
    plain = _DOTS.sub("", plain) + "."
    return plain if len(plain) < MAX_LENGTH else ""


def clean_items(items: pl.DataFrame) -> pl.DataFrame:
    """An item table with every text column cleaned; ids and images stay as they are."""
    names = [name for name in items.columns if name not in (Columns.ITEM, Columns.IMAGE)]
    return items.with_columns(
        pl.Series(name, [clean_text(value or "") for value in items[name].to_list()], dtype=pl.String) for name in names
    )
