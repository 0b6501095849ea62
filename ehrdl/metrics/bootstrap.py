"""Bootstrap over subjects: a patient's samples are drawn, or left out, together.

Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ehrdl.metrics.discrimination import Floats

#: Samples x draws in memory at once: small enough for the processor's cache, which halves the time.
_BLOCK = 2**16
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
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(n_samples, n_subjects))
    for first in range(0, n_draws, size):
        rows = min(size, n_draws - first)
        drawn = rng.integers(n_subjects, size=(rows, n_subjects)) + n_subjects * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_subjects)
        yield counts.reshape(rows, n_subjects).astype(np.float64)


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
