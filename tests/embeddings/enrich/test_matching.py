"""Equal names win; else the nearest title, near enough, with the same numbers; else nobody."""

from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from tests.embeddings.test_text import minilm, needs_minilm

from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.base import ContentEmbedder, ItemEmbeddings
from sidrec.embeddings.enrich.matching import Match, MatchConfig, Matcher
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import ConfigError

RUN = RunSettings()
PLANE = {
    "north": (0, 9),
    "nearly north": (3, 4),  # cosine 0.8 with north
    "north east": (5, 5),
    "east": (2, 0),
    "north 2": (0.1, 5),
    "nowhere": (0, 0),
    "north (film)": (7, 7),  # cosine 0.71 with north
    "north (game)": (1, 9),
    "north (2 games)": (1, 9),
}
"""Title → its vector; lengths differ on purpose."""


class Compass(ContentEmbedder):
    """Titles that are directions; counts what it embeds."""

    class Config(Config):
        """A compass."""

        kind: Literal["tests.embeddings.enrich.test_matching:Compass"] = "tests.embeddings.enrich.test_matching:Compass"

    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        vectors = np.array([PLANE[title] for title in catalog.items["title"]], np.float32)
        return ItemEmbeddings(vectors, "compass", catalog.digest)

    def extend(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def matcher(**settings: Any) -> Matcher:
    return Matcher(MatchConfig.model_validate({"embedder": Compass.Config().kind, "threshold": 0.8, **settings}), RUN)


def test_the_score_is_the_cosine_whatever_the_lengths() -> None:
    for threshold, expected in ((0.79, 0.8), (0.81, None)):
        (found,) = matcher(threshold=threshold).among(["nearly north"], ["east", "north"])
        assert (found and (found.position, pytest.approx(found.score, abs=1e-6))) == (expected and (1, expected))


def test_an_equal_name_takes_its_own_entry_not_the_nearest_ones() -> None:
    # "North!" and "north" are equal once cleaned; the vector of "north 2" is nearly as near.
    names = ["north 2", "North!", "east", "NORTH"]
    assert matcher().among(["north", "East (2011)", ""], names) == [Match(1, 1.0), Match(2, 1.0), None]


@pytest.mark.parametrize(
    ("title", "names", "position"),
    [
        ("Portal", ["Portal (Soundtrack)", "Portal"], 1),
        ("Portal (PC)", ["Portal (Soundtrack)", "Portal"], 1),
        ("Portal (Soundtrack)", ["Portal", "Portal: Soundtrack"], 1),
        ("Portal (PC)", ["Portal", "PORTAL (pc)", "portal"], 1),
        ("Mercury (PC)", ["Mercury", "Mercury (video game)"], 0),
        ("Mercury (PC)", ["Mercury (planet)", "Mercury!", "Mercury"], 1),
    ],
)
def test_the_whole_title_comes_first_then_the_cut_one_and_names_stay_whole(
    title: str, names: list[str], position: int
) -> None:
    match = [Match(position, 1.0)]
    assert matcher().among([title], names) == match
    assert matcher().best([title], [names]) == match


def test_a_name_that_is_equal_only_without_its_bracket_must_be_near() -> None:
    for titles in (["north"], ["north (PC)"]):
        assert matcher().among(titles, ["north (film)"]) == matcher().best(titles, [["north (film)"]]) == [None]
        for found in (
            matcher().among(titles, ["north (film)", "north (game)"])[0],
            matcher().best(titles, [["north (film)", "north (game)"]])[0],
        ):
            assert found is not None
            assert (found.position, found.score) == (1, pytest.approx(9 / 82**0.5, abs=1e-6))
    # A number in a bracket makes no other part of a series.
    assert [match and match.position for match in matcher().among(["north"], ["north (2 games)"])] == [0]


def test_titles_that_are_one_when_cut_keep_their_own_entries() -> None:
    found = matcher().among(["north (film)", "north", "north (PC)"], ["north", "north (film)"])
    assert found == [Match(1, 1.0), Match(0, 1.0), Match(0, 1.0)]


def test_a_hint_decides_between_things_of_one_name() -> None:
    names = ["Mercury", "Mercury (planet)", "Mercury (video game)"]
    assert matcher().best(["Mercury (PC)", "Mercury"], [names, names], "Video Game") == [Match(2, 1.0)] * 2
    assert matcher().best(["Mercury"], [names[:2]], "video game") == [Match(0, 1.0)]
    assert matcher().best([""], [["video game"]], "video game") == [None]


def test_numbers_keep_parts_of_a_series_apart() -> None:
    assert matcher().among(["north"], ["north 2"]) == [None]
    (found,) = matcher(numbers_agree=False).among(["north"], ["north 2"])
    assert found is not None
    assert found.score > 0.999
    # The next best name counts where the best one is another part.
    (found,) = matcher(threshold=0.7).among(["nearly north"], ["north 2", "north east"])
    assert found is not None
    assert found.position == 1


def test_a_title_without_direction_is_nowhere() -> None:
    assert matcher(threshold=0.01).among(["nowhere"], ["north", "east"]) == [None]
    assert matcher().among(["north"], []) == [None]


def test_candidates_of_each_title_are_its_own() -> None:
    candidates = [["east", "north east"], ["north"], [], ["nearly north", "East"], ["north"]]
    found = matcher(threshold=0.7).best(["nearly north", "nearly north", "north", "east", ""], candidates)
    places = [match and match.position for match in found]
    assert places == [1, 0, None, 1, None]
    assert [match.score for match in found if match] == pytest.approx([0.98995, 0.8, 1.0], abs=1e-4)


def test_equal_scores_take_the_first_name() -> None:
    (found,) = matcher(threshold=0.5).best(["north east"], [["east", "north", "east"]])
    assert found is not None
    assert found.position == 0


WORDS = ["red", "blue", "old", "quest", "storm", "king", "castle", "river"]


def test_tf_idf_equals_a_slow_search() -> None:
    rng = np.random.default_rng(3)
    names = list(dict.fromkeys(" ".join(rng.permutation(WORDS)[: rng.integers(3, 5)]) for _ in range(60)))
    titles = [" ".join(rng.permutation(WORDS)[:4]) for _ in range(25)]
    config = MatchConfig.model_validate({"embedder": {"kind": "tfidf", "dims": 100}, "threshold": 0.85})
    found = Matcher(config, RUN).among(titles, names)
    left = [title for title in dict.fromkeys(titles) if title not in names]
    texts = [*names, *left]
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(len(texts))], "title": texts}))
    vectors = TfidfEmbedder(dims=100).embed(catalog, RUN).vectors.astype(np.float64)
    for title, match in zip(titles, found, strict=True):
        if title in names:
            assert match == Match(names.index(title), 1.0)
            continue
        cosines = [float(vectors[row] @ vectors[texts.index(title)]) for row in range(len(names))]
        assert (match is not None) == (max(cosines) >= 0.85)
        if match is not None:
            assert match.score == pytest.approx(max(cosines), abs=1e-5)
            assert cosines[match.position] == pytest.approx(max(cosines), abs=1e-5)
    assert any(match and match.score < 1 for match in found)
    assert any(match is None for match in found)


def test_titles_without_a_word_need_no_vectors() -> None:
    config = MatchConfig.model_validate({"embedder": "tfidf"})
    assert Matcher(config, RUN).best(["7"], [["8", "9"]]) == [None]


def test_settings_that_cannot_work_are_refused() -> None:
    for kind in ({"kind": "import", "path": "x.npy", "ids": "y.json"}, {"kind": "combine", "parts": ["tfidf", "text"]}):
        with pytest.raises(ConfigError, match=r"match\.embedder"):
            Matcher(MatchConfig.model_validate({"embedder": kind}), RUN)
    with pytest.raises(ValueError, match="no regular expression"):
        MatchConfig.model_validate({"cut": ["("]})


@pytest.mark.slow
@needs_minilm
def test_minilm_finds_other_spellings_and_no_other_games() -> None:
    config = MatchConfig.model_validate({"embedder": {"kind": "text", "model": minilm()}})
    names = ["The Elder Scrolls V: Skyrim", "Portal 2", "Grand Theft Auto V", "The Zookeeper", "Dirt Rally"]
    titles = ["Elder Scrolls V Skyrim", "Portal", "Grand Theft Auto 5", "The Lamplighter", "Dirt 3"]
    found = Matcher(config, RUN).among(titles, names)
    assert [match and match.position for match in found] == [0, None, None, None, None]
