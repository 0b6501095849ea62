"""Bootstrap over subjects: a patient's samples are drawn, or left out, together.

Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehrdl.metrics.discrimination import Floats

Counts = NDArray[np.integer[Any]]

#: Samples x draws in memory at once: small enough for the processor's cache, which halves the time.
_BLOCK = 2**16
#: Bytes of counts in memory at once.
_COUNTS = 400 * 2**20
#: No interval is given if more than this share of the draws has no value, since a whole tail could be missing.
MAX_UNDEFINED = 0.025


def subject_draws(n_subjects: int, n_draws: int, seed: int, n_samples: int) -> Iterator[Floats]:
    """Draw subjects with replacement, and yield how often each was drawn, in blocks.

    Args:
        n_subjects: S, the number of subjects; every draw has as many.
        n_draws: number of draws in total.
        seed: random seed. All models scored with one seed share the same draws, so that comparisons are paired.
        n_samples: number of rows scored at once, which decides the length of a block.

    Yields:
        Counts (draws of this block, S). A sample's weight in a draw is the count of its subject.
    """
    for counts in _draw(n_subjects, n_draws, seed, max(1, _BLOCK // max(n_samples, n_subjects))):
        yield counts.astype(np.float64)


def subject_counts(n_subjects: int, n_draws: int, seed: int, all_first: bool = False) -> Iterator[Counts]:
    """Yield the draws of `subject_draws` in large blocks of small integers.

    Args:
        n_subjects: S, the number of subjects.
        n_draws: number of draws in total.
        seed: random seed.
        all_first: whether a draw of every subject once comes before the first draw.

    Yields:
        Counts (draws of this block, S).
    """
    most, left = max(1, _COUNTS // max(n_subjects, 1)), n_draws + all_first
    block = np.ones((min(most, left), n_subjects), np.uint8)
    filled = int(all_first)
    for counts in _draw(n_subjects, n_draws, seed, max(1, _BLOCK // max(n_subjects, 1))):
        if counts.max(initial=0) > np.iinfo(block.dtype).max:
            block = block.astype(np.uint32)
        for row in counts:
            if filled == len(block):
                yield block
                left -= filled
                block, filled = np.empty((min(most, left), n_subjects), block.dtype), 0
            block[filled] = row
            filled += 1
    if filled:
        yield block


def _draw(n_subjects: int, n_draws: int, seed: int, size: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    for first in range(0, n_draws, size):
        rows = min(size, n_draws - first)
        drawn = rng.integers(n_subjects, size=(rows, n_subjects)) + n_subjects * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_subjects)
        yield counts.reshape(rows, n_subjects)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the draws' values (R,); NaN = no value in that draw.

    Returns:
        Lower and upper end; both are NaN if more than `MAX_UNDEFINED` of the draws has no value.

    >>> interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)
    """
    undefined = np.isnan(values)
    if not len(values) or undefined.mean() > MAX_UNDEFINED:
        return float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(values[~undefined], [tail, 100 - tail])
    return float(low), float(high)


def estimate(value: float, draws: Floats) -> dict[str, float | None]:
    """Return a value with the interval of its draws (R,), for JSON. An undefined value has no interval.

    >>> estimate(0.5, np.full(3, 0.5)), estimate(np.nan, np.ones(3))
    ({'value': 0.5, 'low': 0.5, 'high': 0.5}, {'value': None, 'low': None, 'high': None})
    """
    low, high = interval(draws) if np.isfinite(value) else (np.nan, np.nan)
    return {"value": number(value), "low": number(low), "high": number(high)}


def number(value: float) -> float | None:
    """Return a plain float, or None for NaN and infinity, which JSON cannot store."""
    return float(value) if np.isfinite(value) else None
