"""What makes titles equal, and what keeps them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.embeddings.enrich.titles import clean_title, numbers_in, title_key

GAMES = [r" - (Xbox|PlayStation|PS|PC|Nintendo|Sega).*$", r"\s*[(\[][^()\[\]]*[)\]]$"]


@pytest.mark.parametrize(
    ("title", "cleaned"),
    [
        ("Spider-Man 2 - PlayStation 5", "Spider-Man 2"),
        ("Hitman: Absolution (PC)", "Hitman: Absolution"),
        ("Tom &amp; Jerry&#8482;  - Xbox 360", "Tom & Jerry"),
        (" - PC", "- PC"),
        ("(untitled)", "(untitled)"),
        ("Plain", "Plain"),
        ("", ""),
    ],
)
def test_cuts_leave_what_people_would_write(title: str, cleaned: str) -> None:
    assert clean_title(title, GAMES) == cleaned


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Half-Life 2", "HALF LIFE 2"),
        ("Assassin’s Creed", "Assassin's Creed"),
        ("Pokémon X & Y", "Pokemon X and Y"),
        ("Straße", "STRASSE"),
    ],
)
def test_spelling_does_not_tell_titles_apart(one: str, other: str) -> None:
    assert title_key(one) == title_key(other)


def test_other_words_and_other_scripts_do() -> None:
    keys = [title_key(title) for title in ("Dirt", "Dirt 2", "Dart", "洞窟物語", "東方", "!!!", "???")]
    assert len(set(keys)) == 7


@given(st.text(max_size=40))
def test_cleaning_is_stable_and_empties_nothing(title: str) -> None:
    once = clean_title(title, GAMES)
    assert bool(once) == bool(clean_title(title))
    assert title_key(title_key(title)) == title_key(title)


def test_roman_numbers_up_to_twenty_nine() -> None:
    tens, ones = ["", "x", "xx"], ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"]
    for value in range(1, 30):
        word = tens[value // 10] + ones[value % 10]
        assert numbers_in(f"Part {word.upper()}") == (frozenset() if len(word) == 1 else {value})
    assert numbers_in("Mix 3D civil") == {3}
