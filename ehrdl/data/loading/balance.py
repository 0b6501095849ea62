"""The chances by which training samples are drawn so that both classes of an outcome are equally frequent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def class_chances(label: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how often each sample is to be drawn, relative to the others (n,); 1 on average.

    For one output, both classes are then equally frequent. For several outputs, a sample has the mean of what each
    output alone would give it, so each output comes closer to balance.

    Args:
        label: the labels (n, K) of binary outputs, NaN = unknown. An output with an unknown label, or with one class
            only, gives a sample 1.

    >>> class_chances(np.array([[1.0], [0.0], [0.0], [0.0]])).round(3).tolist()
    [2.0, 0.667, 0.667, 0.667]
    """
    known, cases = ~np.isnan(label), label == 1
    n, n_cases = known.sum(0), cases.sum(0)
    n_others = n - n_cases
    of_class = np.where(cases, n_cases, n_others)
    both = known & (n_cases > 0) & (n_others > 0)
    return np.asarray(np.where(both, n / (2 * np.maximum(of_class, 1)), 1.0).mean(1))
