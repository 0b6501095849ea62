"""Numbers and names as words."""

from __future__ import annotations

from typing import Any

#: The names of splits and modalities in a report.
SPLIT_NAMES = {"all": "All", "train": "Training", "tuning": "Tuning", "held_out": "Held-out"}


def count(value: Any) -> str:
    """Format a number of patients or samples; text, such as `<10`, stays.

    >>> count(12345), count("<10")
    ('12,345', '<10')
    """
    return f"{value:,}" if isinstance(value, int) else str(value)


def share(value: Any) -> str:
    """Format a share in percent; text stays.

    >>> share(0.894), share(0.5), share("<1.0 %")
    ('89.4 %', '50 %', '<1.0 %')
    """
    if not isinstance(value, int | float):
        return str(value)
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def number(value: float) -> str:
    """Format a measured number with three significant digits.

    >>> number(138.0), number(1.2345), number(12345.6), number(0.0)
    ('138', '1.23', '12,346', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(row: dict[str, Any]) -> str:
    """Format a median with its quartiles, such as `67 (56 to 78)`."""
    return f"{number(row['median'])} ({number(row['q1'])} to {number(row['q3'])})"


def sentence_case(name: str) -> str:
    """Turn a name into words: `summary_stored` -> `Summary stored`."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def joined(parts: list[str]) -> str:
    """Join phrases as in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
