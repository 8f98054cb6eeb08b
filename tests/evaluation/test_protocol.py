import pytest

from sidrec.config import parse
from sidrec.decoding.recommendations import BeamConfig
from sidrec.errors import ConfigError
from sidrec.evaluation.protocol import Protocol


def test_line_names_every_rule():
    line = Protocol(ties="listed", exact=True, max_users=50).describe("leave-one-out", "test")
    for text in ("leave-one-out", "part: test", "all earlier events", "seen items excluded", "ties: order of the list"):
        assert text in line
    for text in ("k = 1, 5, 10, 20", "50 drawn", "whole catalogue", "certified exact", "primary: ndcg@10"):
        assert text in line
    assert "\n" not in line


def test_line_names_the_search_in_force():
    asked, own = BeamConfig(beams=100), BeamConfig(beams=20, normalize="vocabulary")
    assert "search" not in Protocol().describe()
    assert "search: 100 beams, normalize: level" in Protocol(search=asked).describe()
    assert "search: 20 beams, normalize: vocabulary" in Protocol().describe(search=own)


def test_cut_offs_are_sorted_and_unique():
    assert Protocol(k=(10, 5, 10)).k == (5, 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": [0, 10]}, "at least 1"),
        ({"k": []}, "at least 1"),
        ({"primary": "ndcg@7"}, "'ndcg@7' is not among"),
        ({"ties": "random"}, "expected"),
        ({"slices": {"head_share": 0.9}}, "exceed 1"),
        ({"slices": {"history_edges": [5, 2]}}, "do not rise"),
    ],
)
def test_wrong_rules_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        parse(Protocol, fields)
