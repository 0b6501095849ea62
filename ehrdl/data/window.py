"""THE cut: a fact is visible to a prediction at time t if and only if `available_time <= t`.

`bounds` alone selects the facts of every feature, whether series, notes, tables or text. Facts are sorted by (subject,
available). A sample sees the slice [start, stop) of its own subject. The encounter of a fact does not matter, since a
quarter of MIMIC's labs have no encounter. A window also requires that a fact happened after t - window: `inside` masks
older rows of the slice. All times are int64 microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ehrdl.options.bounds import Count, Hours, Options


@dataclass(frozen=True)
class Window(Options, key="data.window"):
    """The windows before the prediction in which facts are read, equal for all samples and both classes.

    Attributes:
        series_hours: length of the window of labs, vitals and events before the prediction time [h].
        note_hours: length of the window of notes before the prediction time [h], over this and earlier stays.
        max_observations: the largest number of observations per sample. The latest are kept, and the samples that were
            cut are counted.
        max_notes: the largest number of notes per sample. The latest are kept, and the samples that were cut are
            counted.
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
    """Return the slice [start, stop) of facts that each sample may see.

    Args:
        available: available times, (n_facts,) int64 [µs], sorted within each subject.
        offsets: (n_subjects + 1,) int64; subject i has the facts [offsets[i], offsets[i + 1]).
        subjects: subject ids, (n_subjects,) int64, sorted.
        sample_subject: subject of each sample, (n_samples,) int64, sorted.
        prediction_time: (n_samples,) int64 [µs].
        window: length of the window [µs]; None = everything before. A fact that was available by t - window also
            happened by then, so the slice begins after it.

    Returns:
        start, stop (n_samples,) int64; they are equal if nothing is visible.

    A fact becomes visible exactly at its available time. One microsecond earlier it is invisible:

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
    """Return whether each visible fact happened within the window, that is, later than t - window.

    >>> inside(np.array([19, 20, 21]), 30, 10).tolist()
    [False, False, True]
    """
    return time > prediction_time - window
