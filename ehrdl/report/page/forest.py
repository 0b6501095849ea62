"""Draws the forest plot of subgroups: the reference model's results in each group of patients, with intervals."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ehrdl.report.page.plots import _MUTED, _REFERENCE, _STYLE, _label, _svg
from ehrdl.schema import REGRESSION

#: The metrics of the two panels, what the numbers are multiplied by, the headings, and the value to compare with:
#: None = that of all patients.
_PANELS = {
    "auroc": (1.0, "AUROC", None),
    "observed_minus_predicted": (100.0, "Observed minus predicted, per 100", 0.0),
    "mae": (1.0, "MAE", None),
    "bias": (1.0, "Predicted minus observed", 0.0),
}
#: Height of a row and of the axes below [inch].
_ROW, _BELOW = 0.235, 0.9


def draw_subgroups(output: dict[str, Any], prefix: str) -> dict[str, str]:
    """Draw the forest plot of one output as an SVG element named `subgroups`; nothing if no group has a value.

    Args:
        output: the content of the report for one output.
        prefix: the prefix of all ids inside the element, which makes them unique in the HTML file.
    """
    numeric = output["kind"] == REGRESSION
    panels = ("mae", "bias") if numeric else ("auroc", "observed_minus_predicted")
    lines = _lines(output["groups"])
    if not any(row["rows"] and row["rows"][0][panels[0]]["value"] is not None for _, row in lines if row):
        return {}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, _BELOW + _ROW * len(lines)), layout="constrained")
        sides = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for axes, metric in zip(sides, panels, strict=True):
            _panel(axes, lines, metric, output)
        _names(sides[0], sides[1], lines, numeric)
        return {"subgroups": _svg(figure, f"{prefix}-subgroups")}


def _lines(tables: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any] | None]]:
    """Return the lines of the plot from top to bottom: the name of each column, then its groups. Pairs are left out."""
    lines: list[tuple[str, dict[str, Any] | None]] = []
    for table in tables:
        if not table["is_pair"]:
            lines += [(table["name"], None), *((row["name"], row) for row in table["rows"])]
    return lines


def _panel(axes: Axes, lines: list[tuple[str, dict[str, Any] | None]], metric: str, output: dict[str, Any]) -> None:
    """Plot each group's value and interval, and a line at the value to compare with."""
    scale, heading, neutral = _PANELS[metric]
    unit = f" [{output['unit']}]" if output.get("unit") else ""
    for height, (_, row) in zip(_heights(lines), lines, strict=True):
        found = row["rows"][0][metric] if row and row["rows"] else None
        if found is None or found["value"] is None:
            continue
        if found["low"] is not None:
            axes.plot([scale * found["low"], scale * found["high"]], [height, height], color=_REFERENCE, linewidth=1.6)
        axes.plot(scale * found["value"], height, marker="s", markersize=5, color=_REFERENCE)
    overall = output["subgroups"]["overall"].get(metric, {}).get("value")
    at = overall if neutral is None else neutral
    if at is not None:
        axes.axvline(at, color=_MUTED, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel=heading + unit, ylim=(-0.7, len(lines) - 0.3))


def _heights(lines: list[Any]) -> list[int]:
    return list(range(len(lines) - 1, -1, -1))


def _names(left: Axes, right: Axes, lines: list[tuple[str, dict[str, Any] | None]], numeric: bool) -> None:
    """Write the groups on the left, the columns in bold, and the sizes on the right of the last panel."""
    left.set_yticks(_heights(lines), [_label(name) if row else _label(name).capitalize() for name, row in lines])
    for tick, (_, row) in zip(left.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if row else "bold")
    left.tick_params(axis="y", length=0)
    right.tick_params(axis="y", length=0, labelleft=False)
    sizes = right.secondary_yaxis("right")
    sizes.set_yticks(_heights(lines), [_size(row, numeric) if row else "" for _, row in lines])
    sizes.tick_params(axis="y", length=0)
    sizes.spines["right"].set_visible(False)
    right.set_title("n" if numeric else "n (events)", loc="right", fontsize=9.0)


def _size(row: dict[str, Any], numeric: bool) -> str:
    """Return the number of predictions of a group, and of those with the outcome in brackets."""
    texts = [f"{value:,}" if isinstance(value, int | np.integer) else str(value) for value in _counts(row, numeric)]
    return texts[0] if numeric else f"{texts[0]} ({texts[1]})"


def _counts(row: dict[str, Any], numeric: bool) -> list[Any]:
    return [row["n"]] if numeric else [row["n"], row["events"]]
