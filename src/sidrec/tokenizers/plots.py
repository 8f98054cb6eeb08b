"""The picture of semantic IDs: usage of every level's codes, and how many items stand behind a code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sidrec.types import IntArray, Json

__all__ = ["draw_quality"]

BAR, SECOND = "#33658a", "#f26419"


def draw_quality(path: Path, codes_NL: IntArray, sizes: Sequence[int], before: Json, after: Json) -> None:
    """Write a PNG: one panel a level (items a code, most used first) and one with items behind a code.

    Args:
        path: the file.
        codes_NL: final codes.
        sizes: codes in each level.
        before: `code_quality` before collisions were settled.
        after: the same afterwards.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(sizes) + 1, 3)
    rows = -(-(len(sizes) + 1) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes: list[Any] = list(np.atleast_1d(figure.subplots(rows, columns)).reshape(-1))
    for level, (size, usage) in enumerate(zip(sizes, after["levels"], strict=True)):
        _draw_level(axes[level], np.bincount(codes_NL[:, level], minlength=size), level, usage)
    _draw_groups(axes[len(sizes)], before, after)
    for unused in axes[len(sizes) + 1 :]:
        unused.set_axis_off()
    # Without the version note the file depends on the data alone.
    canvas.print_png(path, metadata={"Software": None})


def _draw_level(axes: Any, counts: IntArray, level: int, usage: Json) -> None:
    ranked = np.sort(counts)[::-1]
    axes.fill_between(np.arange(len(ranked) + 1), np.append(ranked, 0), step="post", color=BAR)
    axes.axhline(ranked.mean(), color=SECOND, linewidth=1, label="even use")
    axes.set_title(
        f"level {level + 1}: {usage['used']} of {usage['size']} used, perplexity {usage['perplexity']:.1f}", fontsize=9
    )
    axes.set_xlabel("codes, most used first")
    axes.set_ylabel("items")
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
    axes.set_ylabel("semantic IDs")
    axes.legend(frameon=False, fontsize=8)
