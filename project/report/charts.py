"""Charts as SVG texts that take the colours of the page they are in."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK = "#010203"  # stands for the page's text colour
_STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # the same chart is the same text
}
_COLORS = (
    *("#2f7ed8", "#e0702a", "#2ca05a", "#c23b4c", "#8a5fc0", "#8c6d46"),
    *("#d069a8", "#7a7a7a", "#b5b52e", "#2bb3c0", "#1f4e8c", "#e8a87c"),
)

Curve = tuple[Sequence[float], Sequence[float]]


def line_chart(
    curves: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    faint: Sequence[Curve] = (),
    y_range: tuple[float, float] | None = None,
    dotted: bool = False,
) -> str:
    """Curves of (x, y), with a legend where there are several.

    Args:
        faint: further ones, without names, behind the others.
        dotted: mark the points.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(x_label, y_label)
        for x, y in faint:
            axes.plot(x, y, color="#7a7a7a", alpha=0.35, linewidth=0.7)
        for (name, (x, y)), color in zip(curves.items(), _cycle(len(curves)), strict=True):
            marker = "o" if dotted else None
            axes.plot(x, y, label=name, color=color, linewidth=1.4, marker=marker, markersize=3)
        if y_range:
            axes.set_ylim(*y_range)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=1 + len(curves) // 6)
        return _svg(figure)


def calibration_chart(runs: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """Share of correct detections over the mean score, for bins of scores.

    Args:
        runs: name -> (mean score, share, number) of each bin.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure("score", "share that is correct")
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        for (name, bins), color in zip(runs.items(), _cycle(len(runs)), strict=True):
            if bins:
                scores, shares, numbers = np.array(bins).T
                axes.plot(scores, shares, color=color, label=name, linewidth=1.2)
                axes.scatter(scores, shares, s=6 + 8 * np.log1p(numbers), color=color)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        if len(runs) > 1:
            axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _cycle(number: int) -> list[str]:
    return [_COLORS[index % len(_COLORS)] for index in range(number)]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # The size is that of the place it is put into; the viewBox keeps the proportions.
    return re.sub(r' (?:width|height)="[^"]*pt"', "", text)
