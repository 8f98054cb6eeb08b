"""Every rule speaks where its figure is bad, names the figure, and is silent otherwise."""

from typing import Any

import numpy as np
import pytest

from sidrec.tokenizers.advice import advice
from sidrec.tokenizers.collisions import Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.quality import quality_report, quality_summary

GOOD = np.stack([np.arange(256) // 16, np.arange(256) % 16], axis=1).astype(np.int32)


def report(codes: np.ndarray, sizes: tuple[int, ...], **facts: Any) -> dict[str, Any]:
    return quality_report(Quantized(codes, sizes), Settled(codes, sizes), "keep") | facts


def problems(codes: np.ndarray, sizes: tuple[int, ...], **facts: Any) -> str:
    return "\n".join(each["problem"] for each in advice(report(codes, sizes, **facts)))


def purity(found: float, by_chance: float) -> dict[str, Any]:
    return {"field": "brand", "depths": [{"purity": found, "random": by_chance}]}


def test_good_codes_get_no_advice() -> None:
    facts = {"relative_reconstruction_error": 0.3, "duplicate_inputs": {"items": 2}, "purity": purity(0.6, 0.2)}
    assert advice(report(GOOD, (16, 16), **facts)) == []


CROWDED = np.array([[0, code % 4] for code in range(40)] + [[code, 1] for code in range(1, 4)] * 20, np.int32)
UNEVEN = np.array([[0] * 90 + list(range(1, 11)), list(range(100))], np.int32).T


@pytest.mark.parametrize(
    ("codes", "sizes", "facts", "words"),
    [
        (GOOD * [1, 0], (16, 16), {}, "all items have the same code on level 2"),
        (GOOD * [1, 0], (16, 16), {}, "collision rate 93.8 % before the policy"),
        (CROWDED, (4, 4), {}, "40 items have the same codes on all levels but the last, which has 4 codes"),
        (UNEVEN, (11, 100), {}, "perplexity of level 1: "),
        (GOOD, (16, 21), {}, "dead codes on level 2: 5 of 21"),
        (np.arange(256)[:, None], (256,), {}, "level 1 has a code for nearly every item"),
        (GOOD, (16, 16), {"duplicate_inputs": {"items": 13}}, "13 items (5.1 %) have exactly the vector of another"),
        (GOOD, (16, 16), {"relative_reconstruction_error": 0.95}, "the codes keep 5.0 % of what the vectors say"),
        (GOOD, (16, 16), {"purity": purity(0.22, 0.2)}, "first codes say hardly more about 'brand' than chance"),
    ],
)
def test_a_bad_figure_is_named(codes: np.ndarray, sizes: tuple[int, ...], facts: dict[str, Any], words: str) -> None:
    assert words in problems(codes, sizes, **facts)


def test_limits_are_not_bad_themselves() -> None:
    assert "dead" not in problems(GOOD, (16, 20))
    assert "vector of another" not in problems(GOOD, (16, 16), duplicate_inputs={"items": 2})
    assert "chance" not in problems(GOOD, (16, 16), purity=purity(0.99, 0.98))


def test_the_change_fits_the_case() -> None:
    (fine,) = advice(report(np.arange(256)[:, None], (256,)))
    assert fine["change"] == "try tokenizer.codebook_size=16"
    half = GOOD.copy()
    half[:128, 1] //= 2
    settled = Settled(np.column_stack([half, np.arange(256) % 2]), (16, 16, 2))
    kept = advice(report(half, (16, 16)))
    counted = advice(quality_report(Quantized(half, (16, 16)), settled, "append_level"))
    assert "append_level" in kept[0]["change"]
    assert "append_level" not in counted[0]["change"]


def test_the_summary_says_it_in_short() -> None:
    found = report(np.arange(256)[:, None], (256,))
    assert "advice" not in quality_summary(found)
    found["advice"] = advice(found)
    assert quality_summary(found)["advice"] == [
        "level 1 has a code for nearly every item, so items share nothing; try tokenizer.codebook_size=16"
    ]
