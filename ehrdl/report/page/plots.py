"""Draws the plots of the report as SVG text. The figures do not use pyplot, so they share no state."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ehrdl.schema import REGRESSION

#: Okabe & Ito's palette, which colour-blind readers can distinguish. The first colour is the reference's.
_REFERENCE, _OTHERS, _CEILING = "#0072B2", ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "#222222"
_MUTED, _GRID = "#777777", "#e6e6e6"
#: Lines differ in their dashes too, so that they can be told apart without colour.
_DASHES = ((0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)), (0, (8, 2)))
#: The colours of the page, which follow its light or dark scheme, in place of those that matplotlib writes.
_SCHEME = {"#000000": "currentColor", _CEILING: "currentColor", _MUTED: "var(--soft)", _GRID: "var(--line)"}
_SCHEME |= {colour: f"var(--series-{i})" for i, colour in enumerate((_REFERENCE, *_OTHERS))}
#: The largest number of letters of a name in a plot.
_LONGEST = 32
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
    "text.parse_math": False,  # a name may hold any number of $
}


def draw(output: dict[str, Any], prefix: str) -> dict[str, str]:
    """Draw all plots of one output.

    Args:
        output: the content of the report for one output, which is an item of `outputs` in the result of `summarize`.
        prefix: the prefix of all ids inside the SVG elements, which makes the ids unique in the HTML file.

    Returns:
        The SVG element of each plot, by the plot's name. The plots of a binary output are roc, pr, calibration, risk
        and decision. Those of a regression output are cells, bins, within and errors. The plot forest is added if there
        are differences between models.
    """
    numeric = output["kind"] == REGRESSION
    main = "mae" if numeric else "auroc"
    with mpl.rc_context(_STYLE):
        if numeric:
            figures = {name: plot(output["curves"], output["unit"]) for name, plot in _NUMERIC.items()}
        else:
            figures = {name: plot(output["curves"]) for name, plot in _PLOTS.items()}
        told = [row for row in output["differences"] if row["metrics"][main]["low"] is not None]
        # A constant model's AUROC is always 0.5, and its bar would squeeze the others.
        rows = [row for row in told if numeric or row["other"] not in output["constant"]]
        if rows:
            figures["forest"] = _forest(rows, output["reference"], main, output.get("unit", ""))
        return {name: _svg(figure, f"{prefix}-{name}") for name, figure in figures.items()}


def _svg(figure: Figure, prefix: str) -> str:
    """Return the figure as an `<svg>` element with ids that start with `prefix`."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the name is text, and browsers have more fonts
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _SCHEME.items():
        text = text.replace(f": {colour.lower()}", f": {name}")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    return re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{prefix}-", text)


def _label(name: str) -> str:
    """Shorten a model's name to one line of a legend. Pad a leading `_`, because matplotlib would omit the name."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(plain) > _LONGEST:
        plain = f"{plain[: _LONGEST - 11]}…{plain[-10:]}"
    return f"\N{NO-BREAK SPACE}{plain}" if plain.startswith("_") else plain


def _axes(width: float = 4.3, height: float = 3.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _styles(names: Iterable[str], curves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the colour and line of each model: bold for the reference, dashed for the true risk."""
    styles: dict[str, dict[str, Any]] = {}
    free = iter(zip(_OTHERS, _DASHES, strict=True))
    for name in names:
        if name == curves["reference"]:
            styles[name] = {"color": _REFERENCE, "linewidth": 2.4, "zorder": 5}
        elif name in curves["truth"]:
            styles[name] = {"color": _CEILING, "linewidth": 1.2, "linestyle": (0, (4, 2))}
        else:
            colour, dashes = next(free, (_MUTED, "-"))
            styles[name] = {"color": colour, "linewidth": 1.4, "linestyle": dashes}
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
    styles = _styles((line["name"] for line in curves["lines"]), curves)
    for line in curves["lines"]:
        axes.plot(line[kind]["x"], line[kind]["y"], label=_label(line["name"]), **styles[line["name"]])


def _calibration(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    drawn = [part for part in curves["calibration"] if part["x"]]
    styles = _styles((part["name"] for part in drawn), curves)
    top = 0.05
    for part in drawn:
        bold = part["name"] == curves["reference"]
        style = styles[part["name"]]
        axes.plot(part["x"], part["y"], label=_label(part["name"]), **style)
        if bold:
            axes.fill_between(part["x"], part["low"], part["high"], color=style["color"], alpha=0.2, linewidth=0)
        top = max(top, *part["x"], *(part["high"] if bold else part["y"]))
    top = min(1.0, 1.05 * top)
    axes.plot([0, top], [0, top], color=_MUTED, linewidth=0.8, linestyle=":", label="ideal")
    axes.set(xlabel="Predicted risk", ylabel="Observed share with the outcome", xlim=(0, top), ylim=(0, top))
    axes.legend(loc="upper left")
    return figure


def _decision(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    part = curves["decision"]
    styles = _styles((line["name"] for line in part["lines"]), curves)
    for line in part["lines"]:
        axes.plot(part["x"], [100 * y for y in line["y"]], label=_label(line["name"]), **styles[line["name"]])
    axes.plot(
        part["x"], [100 * y for y in part["all"]], color=_MUTED, linewidth=1.0, linestyle="--", label="alarm for all"
    )
    axes.axhline(0, color="black", linewidth=0.8, label="no alarm")
    top = max(part["all"][0], *(max(line["y"]) for line in part["lines"]), 1e-3)
    axes.set(xlabel="Threshold: alarm at this risk or more", ylabel="Net benefit per 100 predictions")
    axes.set(xlim=(0, part["x"][-1]), ylim=(-25 * top, 108 * top))
    axes.legend(loc="upper right")
    return figure


def _risk(curves: dict[str, Any]) -> Figure:
    figure, axes = _axes()
    risk = curves["risk"]
    without, had = risk["without"], risk["with"]
    axes.stairs(without["share"], without["edges"], fill=True, color=_MUTED, alpha=0.35, label="without the outcome")
    axes.stairs(had["share"], had["edges"], color=_REFERENCE, linewidth=2, label="with the outcome")
    axes.set(
        xlabel=f"Predicted risk ({_label(curves['reference'])})",
        ylabel="Share of the group",
        xlim=(0, had["edges"][-1]),
    )
    axes.legend(loc="upper right")
    return figure


def _forest(rows: list[dict[str, Any]], reference: str, metric: str, unit: str) -> Figure:
    """Plot the differences in AUROC (or MAE) with their intervals. An interval that includes zero is grey."""
    figure, axes = _axes(8.8, 1.0 + 0.32 * len(rows))
    for height, row in enumerate(reversed(rows)):
        value = row["metrics"][metric]
        colour = {"better": _REFERENCE, "worse": _OTHERS[0]}.get(row["verdict"], _MUTED)
        axes.plot([value["low"], value["high"]], [height, height], color=colour, linewidth=1.8)
        axes.plot(value["value"], height, marker="s", markersize=6, color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{_label(reference)} - {_label(row['other'])}" for row in reversed(rows)])
    side = "left" if metric == "mae" else "right"
    axes.set(ylim=(-0.6, len(rows) - 0.4))
    axes.set(xlabel=f"{_with('Difference in ' + metric.upper(), unit)}; {side} of 0 favours {_label(reference)}")
    return figure


def _with(text: str, unit: str) -> str:
    return f"{text} [{unit}]" if unit else text


def _cells(curves: dict[str, Any], unit: str) -> Figure:
    figure, axes = _axes()
    cells = curves["cells"]
    share = np.ma.masked_invalid(np.array(cells["share"], np.float64))
    axes.pcolormesh(cells["edges"], cells["edges"], share, cmap="Blues", vmin=0)
    axes.plot(cells["range"], cells["range"], color=_MUTED, linewidth=0.8, linestyle=":", label="ideal")
    axes.set(xlabel=_with("Observed", unit), ylabel=_with("Predicted", unit), xlim=cells["range"], ylim=cells["range"])
    axes.legend(loc="upper left")
    return figure


def _bins(curves: dict[str, Any], unit: str) -> Figure:
    figure, axes = _axes()
    styles = _styles((part["name"] for part in curves["bins"]), curves)
    ends: list[float] = []
    for part in curves["bins"]:
        style = styles[part["name"]]
        axes.plot(part["predicted"], part["observed"], marker="o", markersize=4, label=_label(part["name"]), **style)
        if part["name"] == curves["reference"]:
            for x, y, margin in zip(part["predicted"], part["observed"], part["margin"], strict=True):
                axes.vlines(x, y - (margin or 0), y + (margin or 0), color=style["color"], linewidth=1)
        ends += [*part["predicted"], *part["observed"]]
    room = 0.06 * (max(ends) - min(ends)) + 1e-9
    span = (min(ends) - room, max(ends) + room)
    axes.plot(span, span, color=_MUTED, linewidth=0.8, linestyle=":", label="ideal")
    axes.set(xlabel=_with("Predicted (mean of the bin)", unit), ylabel=_with("Observed (mean of the bin)", unit))
    axes.set(xlim=span, ylim=span)
    axes.legend(loc="upper left")
    return figure


def _within(curves: dict[str, Any], unit: str) -> Figure:
    figure, axes = _axes()
    styles = _styles((line["name"] for line in curves["within"]), curves)
    for line in curves["within"]:
        axes.plot(line["x"], line["y"], label=_label(line["name"]), **styles[line["name"]])
    axes.set(xlabel=_with("Off by at most", unit), ylabel="Share of the predictions", ylim=(0, 1.005))
    axes.set(xlim=(0, curves["within"][0]["x"][-1]))
    axes.legend(loc="lower right")
    return figure


def _errors(curves: dict[str, Any], unit: str) -> Figure:
    figure, axes = _axes()
    errors = curves["errors"]
    axes.stairs(errors["share"], errors["edges"], fill=True, color=_REFERENCE, alpha=0.45)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=_with("Predicted minus observed", unit), ylabel="Share of the predictions")
    axes.set(xlim=(errors["edges"][0], errors["edges"][-1]))
    return figure


_PLOTS = {"roc": _roc, "pr": _pr, "calibration": _calibration, "risk": _risk, "decision": _decision}
_NUMERIC = {"cells": _cells, "bins": _bins, "within": _within, "errors": _errors}
