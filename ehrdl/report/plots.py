"""Plots as SVG text for one HTML page: matplotlib figures without pyplot, so that no state is shared."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ehrdl.metrics.evaluate import BAYES

#: Okabe & Ito's palette, told apart by colour-blind readers: the reference first, then the others in turn.
_REFERENCE, _OTHERS, _CEILING = "#0072B2", ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "#222222"
_MUTED = "#777777"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "svg.hashsalt": "ehrdl",  # the same numbers give the same bytes
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.titlesize": 10.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


def draw(output: dict[str, Any], prefix: str) -> dict[str, str]:
    """All plots of one output.

    Args:
        output: one of the summary's `outputs`.
        prefix: makes the ids inside the SVGs unique on the page.

    Returns:
        roc, pr, calibration, risk and, where there are differences, forest: SVG elements.
    """
    with mpl.rc_context(_STYLE):
        figures = {name: plot(output["curves"]) for name, plot in _PLOTS.items()}
        told = [row for row in output["differences"] if row["metrics"]["auroc"]["low"] is not None]
        rows = [row for row in told if row["other"] != "prevalence"]  # 0.5 by definition: it would squeeze the others
        if rows:
            figures["forest"] = _forest(rows, output["reference"])
        return {name: _svg(figure, f"{prefix}-{name}") for name, figure in figures.items()}


def _svg(figure: Figure, prefix: str) -> str:
    """The figure as an `<svg>` element whose ids start with `prefix`."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    return re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{prefix}-", text)


def _axes(width: float = 4.3, height: float = 3.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _styles(names: Iterable[str], reference: str) -> dict[str, dict[str, Any]]:
    """Colour and line of each model: the reference bold, the ceiling dashed."""
    styles: dict[str, dict[str, Any]] = {}
    free = iter(_OTHERS)
    for name in names:
        if name == reference:
            styles[name] = {"color": _REFERENCE, "linewidth": 2.4, "zorder": 5}
        elif name == BAYES:
            styles[name] = {"color": _CEILING, "linewidth": 1.2, "linestyle": (0, (4, 2))}
        else:
            styles[name] = {"color": next(free, _MUTED), "linewidth": 1.3}
    return styles


def _roc(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    _lines(axes, curves, "roc")
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=":", label="chance")
    axes.set(xlabel="False positive rate (1 - specificity)", ylabel="Sensitivity", xlim=(0, 1), ylim=(0, 1.005))
    axes.legend(loc="lower right")
    return figure


def _pr(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    _lines(axes, curves, "pr")
    prevalence = curves["prevalence"]
    axes.axhline(prevalence, color=_MUTED, linewidth=0.8, linestyle=":", label=f"prevalence {100 * prevalence:.1f} %")
    axes.set(
        xlabel="Recall (sensitivity)", ylabel="Precision (positive predictive value)", xlim=(0, 1), ylim=(0, 1.005)
    )
    axes.legend(loc="upper right")
    return figure


def _lines(axes: Axes, curves: dict[str, Any], kind: str) -> None:
    styles = _styles((line["name"] for line in curves["lines"]), curves["reference"])
    for line in curves["lines"]:
        axes.plot(line[kind]["x"], line[kind]["y"], label=line["name"], **styles[line["name"]])


def _calibration(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    styles = _styles((part["name"] for part in curves["calibration"]), curves["reference"])
    top = 0.0
    for part in curves["calibration"]:
        bold = part["name"] == curves["reference"]
        style = styles[part["name"]]
        axes.plot(part["predicted"], part["observed"], marker="o", markersize=4, label=part["name"], **style)
        if bold:
            axes.vlines(part["predicted"], part["low"], part["high"], color=style["color"], linewidth=1)
        top = max(top, *part["predicted"], *(part["high"] if bold else part["observed"]))
    top = min(1.0, 1.05 * top)
    axes.plot([0, top], [0, top], color=_MUTED, linewidth=0.8, linestyle=":", label="ideal")
    axes.set(xlabel="Predicted risk (mean of the bin)", ylabel="Observed share with the outcome")
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.legend(loc="upper left")
    return figure


def _risk(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    risk = curves["risk"]
    axes.stairs(risk["without"], risk["edges"], fill=True, color=_MUTED, alpha=0.35, label="without the outcome")
    axes.stairs(risk["with"], risk["edges"], color=_REFERENCE, linewidth=2, label="with the outcome")
    axes.set(xlabel=f"Predicted risk ({curves['reference']})", ylabel="Share of the group", xlim=(0, risk["edges"][-1]))
    axes.legend(loc="upper right")
    return figure


def _forest(rows: list[dict[str, Any]], reference: str) -> Figure:
    """Differences in AUROC with their intervals; those that cross zero stay grey."""
    figure, axes = _axes(8.8, 1.0 + 0.32 * len(rows))
    for height, row in enumerate(reversed(rows)):
        value = row["metrics"]["auroc"]
        colour = {"better": _REFERENCE, "worse": _OTHERS[0]}.get(row["verdict"], _MUTED)
        axes.plot([value["low"], value["high"]], [height, height], color=colour, linewidth=1.8)
        axes.plot(value["value"], height, marker="s", markersize=6, color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{reference} - {row['other']}" for row in reversed(rows)])
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=f"Difference in AUROC; right of 0 favours {reference}")
    return figure


_PLOTS = {"roc": _roc, "pr": _pr, "calibration": _calibration, "risk": _risk}
