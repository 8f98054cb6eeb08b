"""The pictures of a comparison as SVG text: bars with intervals, quality against cost, slices.

Drawn with figure objects only, so that no window, backend or global state is touched; the same
numbers give the same bytes.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sidrec.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cost_plot", "metric_bars", "slice_plot"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sidrec",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}


def metric_bars(rows: Sequence[Json], primary: str) -> str:
    """Horizontal bars of the primary metric with 95 % intervals, best on top.

    Args:
        rows: rows of a comparison (`sidrec.evaluation.report`), best first.
        primary: name of the metric.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        place = np.arange(len(rows))[::-1]
        means = np.array([row["metrics"][primary] for row in rows])
        bounds = np.array([row["interval"] for row in rows]).T
        colours = [COLOURS[0] if row["generative"] else COLOURS[6] for row in rows]
        axes.barh(place, means, color=colours, height=0.62)
        errors = np.maximum(np.stack([means - bounds[0], bounds[1] - means]), 0)
        axes.errorbar(means, place, xerr=errors, fmt="none", ecolor="#222222", capsize=3, linewidth=1)
        for mean, high, y in zip(means, bounds[1], place, strict=True):
            axes.annotate(f"{mean:.4f}", (max(mean, high), y), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(place, [row["name"] for row in rows])
        axes.set_xlim(0, float(max(bounds[1].max(), means.max(), 1e-9)) * 1.18)
        axes.set_xlabel(f"{primary}, mean over users with 95 % bootstrap interval")
        axes.grid(axis="y", visible=False)

    return _svg(draw, (7, 1.1 + 0.45 * len(rows)))


def cost_plot(rows: Sequence[Json], primary: str) -> str:
    """The primary metric against training seconds; a larger dot ranks more users a second.

    Args:
        rows: rows of a comparison; those without a known training time are left out.
        primary: name of the metric.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, row in enumerate(row for row in rows if row["cost"]["train_seconds"] is not None):
            seconds = max(row["cost"]["train_seconds"], 1e-2)
            size = 30 + 25 * np.log10(1 + (row["cost"]["users_per_second"] or 0))
            colour = COLOURS[0] if row["generative"] else COLOURS[6]
            axes.scatter(seconds, row["metrics"][primary], s=size, color=colour, zorder=3)
            point = (seconds, row["metrics"][primary])
            # Neighbours in rank are neighbours in height: their names go above and below in turns.
            axes.annotate(row["name"], point, (8, -11 if number % 2 else 5), textcoords="offset points")
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.15)
        axes.set_xlabel("training, wall-clock seconds (log scale)")
        axes.set_ylabel(primary)

    return _svg(draw, (7, 3.6))


def slice_plot(rows: Sequence[Json], primary: str, slices: Sequence[str]) -> str:
    """The primary metric of every recommender in every slice of users, side by side.

    Args:
        rows: rows of a comparison, best first.
        primary: name of the metric.
        slices: names of the slices, in order.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        width = 0.8 / max(len(rows), 1)
        users = rows[0]["slices"] if rows else {}
        for number, row in enumerate(rows):
            heights = [row["slices"].get(name, {}).get(primary, 0.0) for name in slices]
            places = np.arange(len(slices)) + (number - (len(rows) - 1) / 2) * width
            axes.bar(places, heights, width * 0.92, label=row["name"], color=COLOURS[number % len(COLOURS)])
        labels = [f"{name}\n{users.get(name, {}).get('users', 0)} users" for name in slices]
        axes.set_xticks(np.arange(len(slices)), labels, fontsize=8)
        axes.set_ylabel(primary)
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=min(len(rows), 5), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _svg(draw, (max(7.0, 1.1 * len(slices)), 3.8))


def _svg(draw: "Callable[[Figure], None]", size: tuple[float, float]) -> str:
    """SVG text of the figure that `draw` fills."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
