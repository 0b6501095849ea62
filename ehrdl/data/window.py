"""THE cut: a fact is visible to a prediction at time t if and only if `available_time <= t`.

The function `bounds` alone selects the facts of every feature, whether series, notes, tables or text. Facts are sorted
by (subject, available). A sample sees a slice [start, stop) of the facts of its own subject. The encounter of a fact
does not matter, since a quarter of MIMIC's labs have no encounter. A window also requires that a fact happened after
the time `t - window`. The function `inside` tells which facts of the slice did. All times are int64 microseconds since
1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ehrdl.options.bounds import Count, Hours, Options


@dataclass(frozen=True)
class Window(Options, key="data.window"):
    """How far before the prediction time facts are read. The windows are the same for all samples of both classes.

    Attributes:
        series_hours: length of the window of labs, vitals and events before the prediction time [h].
        note_hours: length of the window of notes before the prediction time [h]. It may reach back into earlier stays.
        max_observations: the largest number of observations per sample. If a sample has more, the latest are kept. The
            number of such samples is counted.
        max_notes: the largest number of notes per sample. If a sample has more, the latest are kept. The number of such
            samples is counted.
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
    """Return, for each sample, the slice [start, stop) of the facts that it may see.

    Args:
        available: the time when each fact became available, (n_facts,) int64 [µs], sorted within each subject.
        offsets: (n_subjects + 1,) int64; subject i has the facts [offsets[i], offsets[i + 1]).
        subjects: subject ids, (n_subjects,) int64, sorted.
        sample_subject: subject of each sample, (n_samples,) int64, sorted.
        prediction_time: (n_samples,) int64 [µs].
        window: length of the window before the prediction time [µs]; None = no limit. The slice begins after all facts
            that were available by prediction_time - window, since these also happened by then.

    Returns:
        start and stop, (n_samples,) int64 each. They are equal if the sample may see no fact.

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
    """Return whether each fact happened within the window, that is, later than prediction_time - window.

    >>> inside(np.array([19, 20, 21]), 30, 10).tolist()
    [False, False, True]
    """
    return time > prediction_time - window
