"""One value a field, by precedence; lists united in a stable order; one line of text."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidrec.embeddings.enrich.answers import Facts
from sidrec.embeddings.enrich.merging import facts_line, merged

STEAM: Facts = {"year": "2011", "genres": ["Racing", "Sports"], "developers": ["Codemasters"], "platforms": ["PC"]}
WIKI: Facts = {"about": "2011 video game", "developers": "Codemasters Racing Studio"}
CHAT: Facts = {"year": "2012", "genres": ["rally", "RACING"], "platforms": ["Xbox 360", "PC"], "price": "20 USD"}


def test_the_first_source_wins_and_lists_are_united() -> None:
    assert merged({"steam": STEAM, "wikipedia": WIKI, "chat": CHAT}) == {
        "year": "2011",
        "genres": ["Racing", "Sports", "rally"],
        "developers": ["Codemasters", "Codemasters Racing Studio"],
        "platforms": ["PC", "Xbox 360"],
        "about": "2011 video game",
        "price": "20 USD",
    }


def test_a_field_may_have_an_order_of_its_own() -> None:
    sources = {"steam": STEAM, "wikipedia": WIKI, "chat": CHAT}
    found = merged(sources, {"year": ["chat"], "genres": ["chat", "steam"], "price": ["steam"]})
    assert found["year"] == "2012"
    assert found["genres"] == ["rally", "RACING", "Sports"]
    assert found["price"] == "20 USD"


def test_nothing_known_is_an_empty_line() -> None:
    assert merged({"steam": {}, "chat": {}}) == {}
    assert facts_line({}) == ""


def test_the_line_has_its_fields_in_their_order() -> None:
    facts = merged({"steam": STEAM, "chat": CHAT})
    assert facts_line(facts) == (
        "developers: Codemasters; genres: Racing, Sports, rally; platforms: PC, Xbox 360; price: 20 USD; year: 2011"
    )
    assert facts_line(facts, ["year", "release_year", "genres"]) == "year: 2011; genres: Racing, Sports, rally"
    assert facts_line({"item_type": "a;b\nc"}) == "item type: a,b c"


VALUES = st.text(min_size=1, max_size=3) | st.lists(st.text(min_size=1, max_size=2), min_size=1, max_size=4)
SOURCES = st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), VALUES), max_size=3)


@given(SOURCES)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
def test_nothing_is_lost_and_nothing_invented(sources: dict[str, Facts]) -> None:
    found = merged(sources)
    assert set(found) == {name for facts in sources.values() for name in facts}
    for name, value in found.items():
        values = [facts[name] for facts in sources.values() if name in facts]
        if isinstance(value, str):
            assert value == values[0]
        else:
            texts = [text for each in values for text in (each if isinstance(each, list) else [each])]
            assert {text.casefold() for text in value} == {text.casefold() for text in texts}
            assert len({text.casefold() for text in value}) == len(value)
    assert facts_line(found) == facts_line(dict(sorted(found.items(), reverse=True)))
