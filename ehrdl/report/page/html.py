"""Renders the report as one HTML file that opens offline and can be printed.

Its script moves between tabs, moves the slider and switches between light and dark. Without a script, all is shown.
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ehrdl.engine.files import write_text
from ehrdl.metrics.catalogue import BY_KIND
from ehrdl.report.page.consort import draw_consort
from ehrdl.report.page.forest import draw_subgroups
from ehrdl.report.page.plots import draw
from ehrdl.schema import BINARY

#: Each metric's heading, and which values are good.
_HEADINGS = {name: (metric.heading, metric.good) for kind in BY_KIND.values() for name, metric in kind.items()}
_TITLES = {
    "comparison": "Comparison",
    "calibration": "Calibration",
    "decisions": "Decisions",
    "subgroups": "Subgroups",
    "data": "Data and flow",
    "checks": "Limits and checks",
    "checklists": "Checklists",
    "reproduction": "Reproduction",
}
_VERDICTS = {
    "better": "{model} ranks patients better than {other}: the whole interval of the difference is above 0.",
    "worse": "{model} ranks patients worse than {other}: the whole interval of the difference is below 0.",
    "not told apart": "These patients do not tell {model} and {other} apart: the difference's interval includes 0.",
    "no interval": "The difference of {model} and {other} has no interval: too few patients had the outcome.",
}
_VERDICTS_NUMERIC = {
    "better": "{model} comes closer than {other}: the whole interval of the difference in MAE is below 0.",
    "worse": "{model} is further off than {other}: the whole interval of the difference in MAE is above 0.",
    "not told apart": _VERDICTS["not told apart"],
    "no interval": "The difference of {model} and {other} has no interval: there are too few patients.",
}


def write_report(summary: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Render the report and write it as an HTML file. The file is written whole or not at all.

    Args:
        summary: the content of the report, from `summarize`.
        path: the path of the file. An old file is replaced.

    Returns:
        The path of the file.
    """
    target = Path(path)
    text = render(summary)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)  # the file mode follows the umask
    return target


def render(summary: dict[str, Any]) -> str:
    """Return the HTML text of the report.

    Args:
        summary: the content of the report, from `summarize`.
    """
    loader = PackageLoader("ehrdl.report.page", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "estimate": estimate,
        "percent": percent,
        "per_hundred": per_hundred,
        "number": number,
        "fact": fact,
        "draw_consort": draw_consort,
        "capitalize_first": lambda line: line[:1].upper() + line[1:],
        "verdict": _verdict,
        "verdict_numeric": _verdict_numeric,
    }
    plots = {  # matplotlib escapes the text that it draws
        output["name"]: {
            name: Markup(svg) for name, svg in (draw(output, f"o{i}") | draw_subgroups(output, f"o{i}")).items()
        }
        for i, output in enumerate(summary["outputs"])
        if not output["hidden"]
    }
    script = (resources.files("ehrdl.report.page") / "templates" / "script.js").read_text(encoding="utf-8")
    # The page allows this one script by its hash, so that no text from outside can ever run as another.
    script_hash = b64encode(sha256(script.encode()).digest()).decode()
    content = {"s": summary, "parts": _parts(summary), "plots": plots, "headings": _HEADINGS}
    return environment.get_template("report.html").render(content, script=Markup(script), script_hash=script_hash)


def _parts(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Return the parts of the page that have content, each with its id and title."""
    kinds = {output["kind"] for output in summary["outputs"] if not output["hidden"]}
    there = {
        "comparison": bool(kinds),
        "calibration": BINARY in kinds,
        "decisions": BINARY in kinds,
        "subgroups": bool(kinds),
        "data": any(summary.get(key) for key in ("cohort", "consort", "facts", "quality")),
        "checks": True,
        "checklists": bool(summary.get("checklists")),
        "reproduction": bool(summary["run"] or summary["config"]),
    }
    return [{"id": part, "title": title} for part, title in _TITLES.items() if there[part]]


def estimate(value: dict[str, Any] | None, signed: bool = False) -> str:
    """Format an estimate and its interval, such as `0.781 (0.762 to 0.799)`; `n/a` if there is no value.

    Args:
        value: `value`, `low` and `high`, the ends of the interval. None = there is no estimate.
        signed: whether to write a plus sign before positive numbers.

    >>> estimate({"value": 0.7812, "low": 0.762, "high": 0.799})
    '0.781 (0.762 to 0.799)'
    """
    if value is None or value["value"] is None:
        return "n/a"
    form = "{:+.3f}" if signed else "{:.3f}"
    text = form.format(value["value"])
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} ({form.format(value['low'])} to {form.format(value['high'])})"


def percent(value: float | None) -> str:
    """Format a share as `12.3 %`."""
    return "n/a" if value is None else f"{100 * value:.1f} %"


def per_hundred(value: dict[str, Any]) -> str:
    """Format a share and its interval as numbers per 100, such as `12.3 (10.1 to 14.9)`.

    >>> per_hundred({"value": 0.1234, "low": 0.101, "high": None})
    '12.3'
    """
    known = [value[name] for name in ("value", "low", "high")]
    if known[0] is None:
        return "n/a"
    first, *ends = (None if part is None else f"{100 * part:.1f}" for part in known)
    return f"{first} ({ends[0]} to {ends[1]})" if None not in ends else str(first)


def number(value: Any) -> str:
    """Format a whole number with thousands separators, and any other number with three digits. Text is unchanged.

    >>> [number(12345), number(0.12345), number(None)]
    ['12,345', '0.123', 'n/a']
    """
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def fact(value: Any, name: str) -> str:
    """Format a value of the report by its name. A value with `share` or `prevalence` in its name is a percentage."""
    share = any(word in name.lower() for word in ("prevalence", "share"))
    return percent(value) if share and isinstance(value, float) and 0 <= value <= 1 else number(value)


def _verdict(verdict: str, model: str, other: str) -> str:
    return _VERDICTS[verdict].format(model=model, other=other)


def _verdict_numeric(verdict: str, model: str, other: str) -> str:
    return _VERDICTS_NUMERIC[verdict].format(model=model, other=other)
