"""A small dump in the form of the published one, whole and broken."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.embeddings.enrich.desk import desk, questions

from sidrec.embeddings.enrich.json_stream import object_entries
from sidrec.embeddings.enrich.steam import SteamDump
from sidrec.errors import DataError

GAMES: dict[str, Any] = {
    "20200": {
        "name": "Galactic Bowling",
        "release_date": "Oct 21, 2008",
        "required_age": 0,
        "price": 19.99,
        "short_description": "Bowling in a \u201cgalaxy\u201d; exaggerated.",
        "developers": ["Perpetual FX Creative"],
        "genres": ["Casual", "Indie", "Sports"],
        "tags": {"Indie": 22, "Sports": 21},
    },
    "1": {"name": "Dirt 3", "release_date": "2011", "price": 0.0, "developers": "Codemasters", "genres": []},
    "2": {"name": "Dirt 2", "release_date": "", "developers": ["Other Studio"]},
    "3": {"name": "Coming Soon", "release_date": "Coming soon"},
    "4": ["no object"],
    "5": {"release_date": "2011"},
    "6": {"name": "Odd", "developers": {"a": 1}},
    "7": {"name": "Storm Castle Quest River", "developers": ["King"]},
}


def dump(tmp_path: Path, text: str | None = None, name: str = "games.json") -> SteamDump:
    data = (json.dumps(GAMES, indent=1) if text is None else text).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return SteamDump(path=str(tmp_path / name), implies={"platforms": ("PC",)})


@pytest.mark.parametrize("name", ["games.json", "games.json.gz"])
def test_a_game_is_found_by_its_name_and_brings_its_own_facts(tmp_path: Path, name: str) -> None:
    asked = questions("GALACTIC BOWLING", "Dirt 3 (PC)", "Tetris", "", "Castle Storm Quest River", "Dirt 4")
    found = dump(tmp_path, name=name).ask("steam", asked, desk(tmp_path))
    assert [answer.item for answer in found.answers] == [question.item for question in asked]
    assert [answer.outcome for answer in found.answers] == ["found", "found", "none", "none", "found", "none"]
    assert found.answers[0].facts == {
        "platforms": ["PC"],
        "release_year": "2008",
        "price": "19.99 USD",
        "genres": ["Casual", "Indie", "Sports"],
        "developers": ["Perpetual FX Creative"],
        "description": "Bowling in a “galaxy”; exaggerated.",
    }
    assert found.answers[1].facts == {
        "platforms": ["PC"],
        "release_year": "2011",
        "price": "0.00 USD",
        "developers": ["Codemasters"],
    }
    assert [(answer.match, answer.score) for answer in found.answers[:2]] == [("Galactic Bowling", 1), ("Dirt 3", 1)]
    assert found.answers[4].match == "Storm Castle Quest River"
    assert [answer.reason for answer in found.answers[2:4]] == ["no game of that title", "the item has no title"]


def test_entries_that_are_no_games_are_named(tmp_path: Path) -> None:
    notes = dump(tmp_path).ask("steam", questions("Dirt 3"), desk(tmp_path)).notes
    assert (notes["games"], notes["skipped"]) == (5, 3)
    assert [text.partition(":")[0] for text in notes["skipped_first"]] == [
        "entry 4",
        "entry 5, name",
        "entry 6, developers.0",
    ]


@pytest.mark.parametrize(
    ("text", "problem", "where"),
    [
        ('{"1": {"name": "A"}, "2": {"name": ', "not valid JSON", "character 35"),
        ('{"1": {"name": "A"}, "2": {nonsense}}', "not valid JSON", "character 27"),
        ('{"1": {"name": "A"} "2": {}}', "expected ',' or '}'", "character 20"),
        ('{"1": {"name": "A"}} and more', "text follows", "character 21"),
        ('[{"name": "A"}]', "expected '{'", "character 0"),
        ("", "expected '{'", "character 0"),
        ("{}", "holds no game", "games.json"),
        ('{"9": 3}', "holds no game", "entry 9"),
    ],
)
def test_a_broken_dump_is_named_with_its_place(tmp_path: Path, text: str, problem: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        dump(tmp_path, text).ask("steam", questions("A"), desk(tmp_path))
    assert problem in str(caught.value)
    assert where in str(caught.value)


def test_a_missing_dump_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        SteamDump(path=str(tmp_path / "nothing.json")).sources()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("number", ["0.0", "-1.5e+7", "12E5", "1e-3", "-0", "1234567"])
@pytest.mark.parametrize("chunk", range(1, 9))
def test_a_number_is_never_cut(tmp_path: Path, number: str, chunk: int) -> None:
    (tmp_path / "x.json").write_text(f'{{"a":{number},"b":[{number}]}}')
    assert list(object_entries(tmp_path / "x.json", chunk)) == [("a", float(number)), ("b", [float(number)])]


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=6), st.integers(1, 40), st.sampled_from([None, 2]))
def test_reading_in_pieces_equals_reading_at_once(tmp_path_factory, entries, chunk: int, indent: int | None) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(entries, indent=indent) + "\n", encoding="utf-8")
    assert list(object_entries(path, chunk)) == list(entries.items())
