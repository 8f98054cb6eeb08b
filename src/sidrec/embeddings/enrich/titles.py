"""Titles made comparable: what shops add is cut, spelling is levelled, numbers are read."""

import html
import re
import unicodedata
from collections.abc import Sequence

__all__ = ["clean_title", "numbers_in", "title_key"]

_MARKS = str.maketrans("", "", "™®©")
_ROMAN = re.compile(r"(?=..)x{0,2}(ix|iv|v?i{0,3})")
_VALUES = {"i": 1, "v": 5, "x": 10}


def clean_title(title: str, cuts: Sequence[str] = ()) -> str:
    """A title as people would write it.

    Args:
        title: as a shop has it.
        cuts: regular expressions; what they match is taken out, one after the other. A cut that would leave nothing
            is not made.

    >>> clean_title("Dirt&trade;  3 - PC Game", [r" - (Xbox|PC).*$"])
    'Dirt 3'
    """
    text = " ".join(html.unescape(title).translate(_MARKS).split())
    for cut in cuts:
        text = " ".join(re.sub(cut, " ", text).split()) or text
    return text


def title_key(title: str) -> str:
    """What equal titles have in common: words in lower case without accents and punctuation.

    >>> title_key("Pokémon: Let’s Go & win!")
    'pokemon let s go and win'
    """
    letters = unicodedata.normalize("NFKD", title.casefold().replace("&", " and "))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = "".join(letter if letter.isalnum() else " " for letter in plain).split()
    return " ".join(words) or title.casefold().strip()


def numbers_in(title: str) -> frozenset[int]:
    """The numbers in a title, Roman ones of two or more letters (up to XXIX) among them.

    >>> sorted(numbers_in("Part 2: Volume VIII of 12")), numbers_in("V for Vendetta")
    ([2, 8, 12], frozenset())
    """
    words = re.findall(r"\d+|[a-z]+", title_key(title))
    return frozenset(
        int(word) if word.isdecimal() else _roman(word) for word in words if word.isdecimal() or _ROMAN.fullmatch(word)
    )


def _roman(word: str) -> int:
    """The value of a Roman numeral: a smaller digit before a larger one is subtracted."""
    values = [_VALUES[letter] for letter in word]
    return sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))
