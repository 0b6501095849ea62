"""Draws the flow chart of a cohort as SVG, in a wide layout and in one for phones.

Colours are those of the page (`currentColor`, `--line`, `--blue`, `--pale`), so that the drawing follows light and dark
pages and prints well. Widths of text are estimated, generously, since no font is at hand.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

Json = Mapping[str, Any]

_FONT, _LINE, _CHAR = 13, 17, 7.4  # size, height of a line, and width of a character at that size [px]
_PAD, _GAP = 10, 22


@dataclass(frozen=True)
class _Layout:
    """The places of the boxes [px]: total width, and left edge and width of the boxes and of the side boxes."""

    name: str
    width: int
    main: tuple[int, int]
    side: tuple[int, int]
    below: bool


_LAYOUTS = (
    _Layout("wide", 760, (10, 430), (480, 270), False),
    _Layout("narrow", 340, (4, 332), (44, 292), True),
)


def draw_consort(charts: list[Json]) -> list[dict[str, str]]:
    """Return the drawings of flow charts: `task`, `wide` and `narrow`, each an SVG element as text.

    Args:
        charts: the charts, from `ehrdl.report.cohort.consort`.
    """
    return [
        {"task": str(chart["task"])} | {layout.name: _svg(chart, layout, f"c{i}{layout.name}") for layout in _LAYOUTS}
        for i, chart in enumerate(charts)
    ]


def _svg(chart: Json, layout: _Layout, own: str) -> str:
    parts: list[str] = []
    y, boxes = 4, chart["boxes"]
    for i, box in enumerate(boxes):
        if box["left_out"]:
            y = _side(parts, box, y, layout, own)
        elif i:
            y = _arrow(parts, layout, y, y + _GAP, own)
        is_last = i == len(boxes) - 1
        y = _box(parts, layout.main, y, _texts(box, layout.main[1]), "main last" if is_last else "main")
    y = _splits(parts, chart["splits"], y, layout, own)
    title = f"Flow chart of the cohort{': ' + chart['task'] if chart['task'] else ''}"
    return (
        f'<svg class="consort" role="img" aria-labelledby="{own}t {own}d" viewBox="0 0 {layout.width} {y + 4}" '
        f'style="width:100%;max-width:{layout.width}px;height:auto;display:block" font-size="{_FONT}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{own}t">{escape(title)}</title>'
        f'<desc id="{own}d">{escape(_described(chart))}</desc>'
        f'<defs><marker id="{own}a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>{"".join(parts)}</svg>'
    )


def _texts(box: Json, width: int) -> list[tuple[str, str]]:
    """Return the lines of a box, each with its style."""
    lines = [(line, "b") for line in _wrapped(box["numbers"], width)]
    lines += [(line, "") for line in _wrapped(box["title"], width)]
    lines += [(line, "soft") for line in _wrapped(box["rule"], width)]
    return lines + [(line, "caveat") for line in _wrapped(box["caveat"], width)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(8, int((width - 2 * _PAD) / _CHAR)))


def _box(parts: list[str], place: tuple[int, int], y: int, lines: list[tuple[str, str]], kind: str) -> int:
    """Draw a box at height `y`, and return the height of its lower edge."""
    x, width = place
    height = len(lines) * _LINE + 2 * _PAD - 4
    edge = "var(--blue,#0072b2)" if "last" in kind else "var(--line,#9aa7b2)"
    fill = "none" if "side" in kind else "var(--pale,#f4f7f9)"
    parts.append(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" '
        f'style="fill:{fill};stroke:{edge};stroke-width:1.5"/>'
    )
    for i, (text, style) in enumerate(lines):
        form = {"b": ' font-weight="bold"', "caveat": ' font-style="italic"', "soft": ' opacity="0.8"'}.get(style, "")
        at = y + _PAD + _FONT - 2 + i * _LINE
        parts.append(f'<text x="{x + _PAD}" y="{at}"{form} fill="currentColor">{escape(text)}</text>')
    return y + height


def _side(parts: list[str], box: Json, y: int, layout: _Layout, own: str) -> int:
    """Draw what a step left out, and the arrows past it. Return the height at which the next box begins."""
    lines = [(line, "") for line in _wrapped(box["left_out"], layout.side[1])]
    x = layout.main[0] + 20
    top = y + 12
    bottom = _box(parts, layout.side, top, lines, "side")
    middle = (top + bottom) // 2
    parts.append(_line(x, middle, layout.side[0] - 2, middle, own))
    return _arrow(parts, layout, y, bottom + 12, own)


def _arrow(parts: list[str], layout: _Layout, y: int, to: int, own: str) -> int:
    x = layout.main[0] + 20
    parts.append(_line(x, y, x, to, own))
    return to


def _line(x1: int, y1: int, x2: int, y2: int, own: str) -> str:
    ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {ends} stroke="currentColor" stroke-width="1.3" marker-end="url(#{own}a)"/>'


def _splits(parts: list[str], splits: list[Json], y: int, layout: _Layout, own: str) -> int:
    """Draw the splits: side by side, or one below the other on a phone. Return the height of the lower edge."""
    if not splits:
        return y
    if layout.below:
        for i, split in enumerate(splits):
            y = y + _GAP // 2 if i else _arrow(parts, layout, y, y + _GAP, own)
            y = _box(parts, layout.main, y, _texts_of_split(split, layout.main[1]), "main")
        return y
    gap = 14
    width = (layout.width - 20 - gap * (len(splits) - 1)) // len(splits)
    bar, top = y + 16, y + 36
    start = layout.main[0] + 20
    middles = [10 + i * (width + gap) + width // 2 for i in range(len(splits))]
    ends = f"M{start} {y}V{bar}M{min(start, middles[0])} {bar}H{middles[-1]}"
    parts.append(f'<path d="{ends}" stroke="currentColor" stroke-width="1.3" fill="none"/>')
    bottom = top
    for i, split in enumerate(splits):
        parts.append(_line(middles[i], bar, middles[i], top, own))
        place = (10 + i * (width + gap), width)
        bottom = max(bottom, _box(parts, place, top, _texts_of_split(split, width), "main"))
    return bottom


def _texts_of_split(split: Json, width: int) -> list[tuple[str, str]]:
    return [(str(split["name"]), "b"), *((line, "") for line in _wrapped(split["numbers"], width))]


def _described(chart: Json) -> str:
    """Return the chart as text, for readers who do not see it."""
    lines = []
    for box in chart["boxes"]:
        rule = f" ({box['rule']})" if box["rule"] else ""
        caveat = f" {box['caveat']}." if box["caveat"] else ""
        left_out = f"{box['left_out']}. " if box["left_out"] else ""
        lines.append(f"{left_out}{box['title']}{rule}: {box['numbers']}.{caveat}")
    lines += [f"{split['name']}: {split['numbers']}." for split in chart["splits"]]
    return " ".join(lines)
