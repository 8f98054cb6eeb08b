"""The page holds everything it shows, in safe HTML, and advice where there is any."""

import base64
import re
from typing import Any

import numpy as np
import pytest

from sidrec.tokenizers.collisions import Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.quality import quality_report
from sidrec.tokenizers.quality_page import quality_page

CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 0]], np.int32)


@pytest.fixture
def report() -> dict[str, Any]:
    settled = Settled(np.column_stack([CODES, [0, 1, 0, 0]]), (2, 2, 2))
    group = {"codes": "<a_0><b_0>", "items": 2, "titles": ["Nuts & <b>bolts</b>", "Screws"]}
    return quality_report(Quantized(CODES, (2, 2)), settled, "append_level") | {
        "purity": None,
        "neighbours": None,
        "largest_groups": [group],
        "examples": [[], [group]],
        "advice": [],
    }


def test_one_file_with_its_picture(report: dict[str, Any]) -> None:
    page = quality_page(report, b"\x89PNG picture")
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "nothing is loaded from elsewhere"
    assert base64.b64encode(b"\x89PNG picture").decode() in page
    assert page == quality_page(report, b"\x89PNG picture")


def test_titles_are_text(report: dict[str, Any]) -> None:
    page = quality_page(report, b"")
    assert "Nuts &amp; &lt;b&gt;bolts&lt;/b&gt;" in page
    assert "&lt;a_0&gt;&lt;b_0&gt;  2 items" in page


def test_sections_follow_what_is_known(report: dict[str, Any]) -> None:
    page = quality_page(report, b"")
    assert "No figure looks bad." in page
    assert "Items that share their first 2 codes" in page
    for heading in ("Against the vectors", "Prefixes against", "first code<"):
        assert heading not in page
    similarity = {"code_similarity": 0.25, "same_prefix": [0.5, 0.125]}
    depth = {"depth": 1, "prefixes": 2, "purity": 0.75, "random": 0.5, "nmi": 0.3}
    report |= {
        "relative_reconstruction_error": 0.125,
        "duplicate_inputs": {"groups": 1, "items": 2, "largest_group": 2, "examples": [["a", "b"]]},
        "purity": {"field": "brand", "labels": 3, "labelled": 4, "depths": [depth]},
        "neighbours": {"pairs": 5, "items": 4, **similarity, "random": None},
        "advice": [{"problem": "level 2 is bad", "reason": "It is.", "change": "mend it"}],
    }
    page = quality_page(report, b"")
    assert "Level 2 is bad. It is. Mend it." in page
    assert "No figure looks bad." not in page
    for text in (
        "0.1250",
        "Prefixes against the field &#x27;brand&#x27;",
        "0.750",
        "Prefixes against neighbours",
        "12.50",
    ):
        assert text in page
    assert "by chance</td>" not in page
