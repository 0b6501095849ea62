"""THE cut: a fact is visible to a prediction at time t if and only if `available_time <= t`.

Every feature, of series, notes, tables and text alike, is selected by `bounds`, and nothing else selects. Facts are
sorted by (subject, available); a sample sees the slice [start, stop) of its own subject, whatever encounter the facts
carry: a quarter of MIMIC's labs carry none. A window further asks that a fact happened after t - window: rows in the
slice that are older are masked by `inside`. All times are int64 microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ehrdl.options.bounds import Count, Hours, Options


@dataclass(frozen=True)
class Window(Options, key="data.window"):
    """How far back each kind of fact is read, the same for every sample and both classes.

    Attributes:
        series_hours: labs, vitals and events of the last hours before the prediction time [h].
        note_hours: notes of the last hours before the prediction time [h]; this and earlier stays.
        max_observations: of a sample's series the latest are kept; how many samples were cut is counted.
        max_notes: of a sample's notes the latest are kept; how many samples were cut is counted.
    """

    series_hours: Hours = 168
    note_hours: Hours = 8760
    max_observations: Count = 1024
    max_notes: Count = 8


def bounds(
    available: np.ndarray,
    offsets: np.ndarray,
    subjects: np.ndarray,
    sample_subject: np.ndarray,
    prediction_time: np.ndarray,
    window: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The slice [start, stop) of facts that each sample may see.

    Args:
        available: (n_facts,) int64 [µs], sorted within each subject.
        offsets: (n_subjects + 1,) int64; subject i owns facts [offsets[i], offsets[i + 1]).
        subjects: (n_subjects,) int64, sorted.
        sample_subject: (n_samples,) int64, sorted.
        prediction_time: (n_samples,) int64 [µs].
        window: its length [µs]; None = everything before. What was available by t - window happened by then, so the
            slice begins after it.

    Returns:
        start, stop (n_samples,) int64; equal where nothing is visible.

    A fact is visible on the boundary, invisible one microsecond later:

    >>> facts = np.array([10, 20, 30])
    >>> def seen(t, window=None):
    ...     start, stop = bounds(facts, np.array([0, 3]), np.array([7]), np.array([7]), np.array([t]), window)
    ...     return facts[start[0]:stop[0]].tolist()
    >>> seen(19), seen(20), seen(21)
    ([10], [10, 20], [10, 20])
    >>> seen(30, window=10), seen(29, window=10)
    ([30], [20])
    """
    n = len(sample_subject)
    start, stop = np.zeros(n, np.int64), np.zeros(n, np.int64)
    if n == 0 or len(subjects) == 0:
        return start, stop
    edges = np.flatnonzero(np.diff(sample_subject)) + 1
    firsts, lasts = np.r_[0, edges], np.r_[edges, n]
    where = np.searchsorted(subjects, sample_subject[firsts])
    for first, last, at in zip(firsts, lasts, where, strict=True):
        if at == len(subjects) or subjects[at] != sample_subject[first]:
            continue  # this subject has no facts
        low, high = offsets[at], offsets[at + 1]
        facts, t = available[low:high], prediction_time[first:last]
        stop[first:last] = low + np.searchsorted(facts, t, side="right")
        start[first:last] = low if window is None else low + np.searchsorted(facts, t - window, side="right")
    return start, stop


def inside(time: np.ndarray, prediction_time: int | np.ndarray, window: int) -> np.ndarray:
    """Which visible facts happened within the window (t - window, …]; the rest of the slice is masked.

    >>> inside(np.array([19, 20, 21]), 30, 10).tolist()
    [False, False, True]
    """
    return time > prediction_time - window
