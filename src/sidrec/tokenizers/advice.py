"""What to do about bad figures of a quality report: what is bad, why that matters, which setting to change.

Rules of thumb, each beside the limit from which it speaks. They read the report and nothing else.
"""

import math
from collections.abc import Callable

from sidrec.types import Json

__all__ = ["advice"]

MAX_DUPLICATES = 0.01
"""Share of items whose vector another item has too."""
MAX_COLLISIONS = 0.05
"""Collision rate before the policy."""
MIN_PERPLEXITY = 0.5
"""Perplexity of a level as a share of the codes that it could use."""
MAX_DEAD = 0.2
"""Dead codes of a level as a share of all."""
MIN_KEPT = 0.1
"""Share of the vectors' variance that the codes keep."""
MIN_PURITY_GAIN = 0.05
"""Purity of level 1 above chance, as a share of what could be gained."""


def advice(report: Json) -> list[Json]:
    """Advice on a report, the most harmful first: `problem` with its figure, `reason` and `change`.

    Args:
        report: `quality_report` with what else is known; see `quality_summary`. `tokenizer`, its kind, decides which
            settings are named.
    """
    found: list[Json] = []
    for rule in RULES:
        found.extend(rule(report))
    kind = report.get("tokenizer", "")
    if kind == "random":
        # The control is meant to say nothing about items.
        found = [entry for entry in found if "chance" not in entry["problem"]]
    if kind == "given":
        return [entry | {"change": "make the codes anew, for example with tokenizer.kind=rqkmeans"} for entry in found]
    if kind == "fsq":
        return [entry | {"change": _for_fsq(entry["change"])} for entry in found]
    return found


def _for_fsq(change: str) -> str:
    """The change with the settings that FSQ has: no codebooks, but axes of values."""
    is_about_use = "balanced" in change or "revive" in change
    return "use other tokenizer.axes" if is_about_use else change.replace("tokenizer.codebook_size", "tokenizer.axes")


def _advice(problem: str, reason: str, change: str) -> list[Json]:
    return [{"problem": problem, "reason": reason, "change": change}]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _one_code(report: Json) -> list[Json]:
    empty = _levels(report, lambda level: level["used"] == 1)
    if not empty or report["before"]["items"] == 1:
        return []
    return _advice(
        f"all items have the same code on level {', '.join(empty)}",
        "Such a level tells no items apart, and every list still pays a decoding step for it.",
        "use fewer tokenizer.levels; if every level is like that, the item vectors do not differ",
    )


def _duplicates(report: Json) -> list[Json]:
    count, items = report.get("duplicate_inputs", {}).get("items", 0), report["before"]["items"]
    if count <= MAX_DUPLICATES * items:
        return []
    return _advice(
        f"{count:,} items ({_percent(count / items)}) have exactly the vector of another item",
        "No tokenizer can tell them apart: their codes differ by the collision policy only, not by what they are.",
        "embed more text fields, or merge items that are the same",
    )


def _collisions(report: Json) -> list[Json]:
    rate = report["before"]["collision_rate"]
    if rate <= MAX_COLLISIONS:
        return []
    kept = report["after"]["collision_rate"] > MAX_COLLISIONS
    return _advice(
        f"collision rate {_percent(rate)} before the policy: so many items repeat the codes of others",
        "A recommender cannot tell apart items that share their codes, and evaluation treats them as tied."
        if kept
        else "The codes of so many items are chosen by the policy, which knows less about them than their vectors.",
        "raise tokenizer.codebook_size or tokenizer.levels"
        + (", or set tokenizer.collisions=append_level" if kept else "")
        + (" (exact duplicates collide under any setting)" if _duplicates(report) else ""),
    )


def _crowded_prefix(report: Json) -> list[Json]:
    before = report["before"]
    size, fullest = before["levels"][-1]["size"], before["fullest_prefix"]
    if fullest <= size or len(before["levels"]) == 1:
        return []
    return _advice(
        f"{fullest:,} items have the same codes on all levels but the last, which has {size:,} codes",
        "They cannot all have different last codes, so policies that add no level must send some to another prefix.",
        "raise tokenizer.levels or tokenizer.codebook_size",
    )


def _level_one_too_fine(report: Json) -> list[Json]:
    items, perplexity = report["before"]["items"], report["before"]["levels"][0]["perplexity"]
    if items < 2 or perplexity <= items / 2:
        return []
    return _advice(
        "level 1 has a code for nearly every item, so items share nothing",
        "A recommender learns about an item from others with the same first codes; here there are none.",
        f"try tokenizer.codebook_size={max(2, math.ceil(items**0.5))}",
    )


def _uneven_levels(report: Json) -> list[Json]:
    items = report["before"]["items"]

    def is_uneven(level: Json) -> bool:
        usable = min(level["size"], items)
        return level["used"] > 1 and level["perplexity"] < MIN_PERPLEXITY * usable

    numbers = _levels(report, is_uneven)
    if not numbers:
        return []
    levels = [report["before"]["levels"][int(number) - 1] for number in numbers]
    figures = ", ".join(f"{level['perplexity']:.1f} of {level['size']}" for level in levels)
    return _advice(
        f"perplexity of level {', '.join(numbers)}: {figures}, so few codes hold most of the items",
        "Unevenly used codes tell items apart badly, and items behind crowded codes collide.",
        "set tokenizer.balanced=true (rqkmeans), or learn the codes with tokenizer.kind=rqvae"
        + ("" if _collisions(report) else ", or use a smaller tokenizer.codebook_size"),
    )


def _dead_codes(report: Json) -> list[Json]:
    numbers = _levels(report, lambda level: level["dead"] > MAX_DEAD * level["size"])
    if not numbers:
        return []
    levels = [report["before"]["levels"][int(number) - 1] for number in numbers]
    figures = ", ".join(f"{level['dead']} of {level['size']}" for level in levels)
    return _advice(
        f"dead codes on level {', '.join(numbers)}: {figures}",
        "A code without items is capacity that was paid for and lost: the codebook is too large, or training lost it.",
        "use a smaller tokenizer.codebook_size; in rqvae and letter see tokenizer.revive_every and tokenizer.init",
    )


def _lossy(report: Json) -> list[Json]:
    error = report.get("relative_reconstruction_error", 0.0)
    if error <= 1 - MIN_KEPT:
        return []
    return _advice(
        f"the codes keep {_percent(max(0.0, 1 - error))} of what the vectors say (reconstruction error {error:.3f})",
        "Similar items are then similar by accident.",
        "raise tokenizer.codebook_size or tokenizer.levels; let a trained tokenizer train longer",
    )


def _meaningless(report: Json) -> list[Json]:
    purity = report.get("purity")
    if not purity:
        return []
    first = purity["depths"][0]
    # Where chance alone is nearly always right there is nothing to gain.
    if first["random"] > 1 - MIN_PURITY_GAIN:
        return []
    gain = (first["purity"] - first["random"]) / (1 - first["random"])
    if gain >= MIN_PURITY_GAIN:
        return []
    return _advice(
        f"first codes say hardly more about '{purity['field']}' than chance: "
        f"purity {first['purity']:.3f}, by chance {first['random']:.3f}",
        "Items behind one first code should be of a kind, or what is learnt about one does not help the others.",
        "check the item vectors: do they hold the text that says what an item is?",
    )


def _levels(report: Json, is_bad: Callable[[Json], bool]) -> list[str]:
    """Numbers of the levels before the policy for which something holds."""
    return [str(number) for number, level in enumerate(report["before"]["levels"], start=1) if is_bad(level)]


RULES = (
    _one_code,
    _level_one_too_fine,
    _duplicates,
    _collisions,
    _crowded_prefix,
    _uneven_levels,
    _dead_codes,
    _lossy,
    _meaningless,
)
