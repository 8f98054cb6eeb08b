"""The picture of semantic IDs: usage of every level's codes, items behind a code, and what prefixes say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sidrec.types import IntArray, Json

__all__ = ["draw_quality"]

BAR, SECOND = "#33658a", "#f26419"


def draw_quality(path: Path, codes_NL: IntArray, sizes: Sequence[int], report: Json) -> None:
    """Write a PNG: a panel a level (items a code, most used first), items behind a code, and what prefixes say.

    Args:
        path: the file.
        codes_NL: final codes.
        sizes: codes in each level.
        report: `quality_report`; `purity` and `neighbours` are drawn if it has them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    before, after = report["before"], report["after"]
    prefix_panels = [name for name in PREFIX_PANELS if report.get(name)]
    panels = len(sizes) + 1 + len(prefix_panels)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes: list[Any] = list(np.atleast_1d(figure.subplots(rows, columns)).reshape(-1))
    for level, (size, usage) in enumerate(zip(sizes, after["levels"], strict=True)):
        name = f"level {level + 1}" if level < len(before["levels"]) else f"level {level + 1} (counter)"
        _draw_level(axes[level], np.bincount(codes_NL[:, level], minlength=size), name, usage)
    _draw_groups(axes[len(sizes)], before, after)
    for name, panel in zip(prefix_panels, axes[len(sizes) + 1 :], strict=False):
        PREFIX_PANELS[name](panel, report[name])
    for unused in axes[panels:]:
        unused.set_axis_off()
    # Without the version note the file depends on the data alone.
    canvas.print_png(path, metadata={"Software": None})


def _draw_level(axes: Any, counts: IntArray, name: str, usage: Json) -> None:
    ranked = np.sort(counts)[::-1]
    axes.fill_between(np.arange(len(ranked) + 1), np.append(ranked, 0), step="post", color=BAR)
    axes.axhline(ranked.mean(), color=SECOND, linewidth=1, label="even use")
    axes.set_title(f"{name}: {usage['used']} of {usage['size']} used, perplexity {usage['perplexity']:.1f}", fontsize=9)
    axes.set_xlabel("codes, most used first")
    axes.set_ylabel("items")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _draw_groups(axes: Any, before: Json, after: Json) -> None:
    sizes = sorted({int(size) for report in (before, after) for size in report["items_per_code"]})
    places = np.arange(len(sizes))
    for shift, name, colour, report in ((-0.2, "before", SECOND, before), (0.2, "after", BAR, after)):
        heights = [report["items_per_code"].get(str(size), 0) for size in sizes]
        axes.bar(places + shift, heights, 0.4, label=name, color=colour)
    step = -(-len(sizes) // 10)
    axes.set_xticks(places[::step], [str(size) for size in sizes[::step]])
    axes.set_yscale("log")
    axes.set_title(f"collision rate {before['collision_rate']:.4f} → {after['collision_rate']:.4f}", fontsize=9)
    axes.set_xlabel("items behind a semantic ID")
    axes.set_ylabel("semantic IDs (log scale)")
    axes.legend(frameon=False, fontsize=8)


def _draw_purity(axes: Any, purity: Json) -> None:
    depths = purity["depths"]
    _draw_against_chance(axes, [at["purity"] for at in depths], [at["random"] for at in depths])
    axes.set_title(f"purity against '{purity['field']}', {purity['labels']} labels", fontsize=9)
    axes.set_ylabel("purity")


def _draw_neighbours(axes: Any, neighbours: Json) -> None:
    by_chance = neighbours["random"]["same_prefix"] if neighbours["random"] else []
    _draw_against_chance(axes, neighbours["same_prefix"], by_chance)
    axes.set_title(f"neighbours in sequences: code similarity {neighbours['code_similarity']:.3f}", fontsize=9)
    axes.set_ylabel("pairs with the same first codes")


def _draw_against_chance(axes: Any, found: Sequence[float], by_chance: Sequence[float]) -> None:
    depths = np.arange(1, len(found) + 1)
    axes.plot(depths, found, marker="o", color=BAR, label="these codes")
    axes.plot(depths[: len(by_chance)], by_chance, marker="o", color=SECOND, linewidth=1, label="by chance")
    axes.set_xticks(depths)
    axes.set_xlabel("number of first codes")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


PREFIX_PANELS: dict[str, Callable[[Any, Json], None]] = {"purity": _draw_purity, "neighbours": _draw_neighbours}
"""Entry of the report → what draws it."""
