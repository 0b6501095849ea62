"""The predictors that models read: how many samples have each, and its usual values in training.

Everything is read as a model reads it, through the dataset and its window. A large cohort is described by patients who
are drawn at random, so that time and memory are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.description.summary import QUARTILES, rounded
from ehrdl.data.features.static import STATICS
from ehrdl.data.notes.store import Notes, kind_name
from ehrdl.schema import TRAIN

#: Samples that are read to tell how many have a predictor, and training samples whose values are read.
MOST_SAMPLES, MOST_VALUES = 50_000, 5_000
_BLOCK = 1_000
_NOTES_READ = 300
#: Each static feature in words: title, unit, whether it is a logarithm (log1p), and the feature that marks it missing.
STATIC_WORDS = {
    "age_years": ("Age", "years", False, "age_missing"),
    "sex_female": ("Female sex", "", False, "sex_missing"),
    "log_admissions_before": ("Admissions so far", "", True, ""),
    "log_admissions_365d": ("Admissions in the last 365 days", "", True, ""),
    "log_admissions_180d": ("Admissions in the last 180 days", "", True, ""),
    "log_days_since_admission": ("Time since the last admission", "d", True, ""),
    "log_days_between_stays": ("Time between the last two stays (3650 d = no earlier stay)", "d", True, ""),
}


def predictors(dataset: SampleDataset, split: np.ndarray, seed: int = 0, least: int = 1) -> dict[str, Any]:
    """Return the predictors: `static`, `series` (one row per channel) and `notes` (one row per kind).

    Args:
        dataset: the dataset of the samples.
        split: the split of each sample (n_samples,).
        seed: the random seed of the draw of patients.
        least: the fewest patients whose kind of note is named, because a rare name could tell who they are.

    Returns:
        Plain values. `n_samples` samples were read for the shares, and `n_values` training samples (all samples, if
        none is for training) for the quartiles.
    """
    every = np.arange(len(dataset))
    train = np.flatnonzero(split == TRAIN) if (split == TRAIN).any() else every
    chosen = _drawn(dataset.subject, every, MOST_SAMPLES, seed)
    of_values = _drawn(dataset.subject, train, MOST_VALUES, seed)
    window = dataset.window
    return {
        "n_samples": len(chosen),
        "n_patients": len(np.unique(dataset.subject[chosen])),
        "n_values": len(of_values),
        "drawn": len(chosen) < len(every),
        "series_hours": float(window.series_hours),
        "note_hours": float(window.note_hours),
        "static": _static(dataset, chosen, train),
        "series": _series(dataset, chosen, of_values),
        "notes": _notes(dataset, chosen, least) if dataset.notes is not None else [],
    }


def _drawn(subject: np.ndarray, rows: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """Return all rows, or the rows of patients drawn at random, at most about `at_most` rows in order."""
    if len(rows) <= at_most:
        return rows
    who, n = np.unique(subject[rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(who))
    n_patients = max(1, int(np.searchsorted(np.cumsum(n[order]), at_most, side="right")))
    drawn: np.ndarray = rows[np.isin(subject[rows], who[order[:n_patients]])]
    return drawn


def _blocks(subject: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows in blocks of about `_BLOCK`, with all rows of a patient in one block."""
    edges = np.r_[0, np.flatnonzero(np.diff(subject[rows])) + 1, len(rows)]
    start = 0
    for stop in edges[1:].tolist():
        if stop - start >= _BLOCK or stop == len(rows):
            yield rows[start:stop]
            start = stop


class _Seen:
    """Counts, block by block, the samples and the patients that have each of some predictors, and that lack it."""

    def __init__(self, n: int) -> None:
        self.samples, self.patients, self.without = (np.zeros(n, np.int64) for _ in range(3))

    def add(self, subject: np.ndarray, has: np.ndarray) -> None:
        """Add a block of samples (B,), sorted by subject, and whether each has each predictor (B, n)."""
        first = np.r_[0, np.flatnonzero(np.diff(subject)) + 1]
        self.samples += has.sum(axis=0)
        self.patients += np.logical_or.reduceat(has, first).sum(axis=0)
        self.without += np.logical_or.reduceat(~has, first).sum(axis=0)

    def counts(self, i: int) -> dict[str, int]:
        """Return the counts of one predictor."""
        found = {"samples": self.samples, "patients": self.patients, "patients_without": self.without}
        return {name: int(values[i]) for name, values in found.items()}


def _static(dataset: SampleDataset, chosen: np.ndarray, train: np.ndarray) -> list[dict[str, Any]]:
    place = {name: i for i, name in enumerate(STATICS)}
    rows = []
    for name, (title, unit, is_log, missing) in STATIC_WORDS.items():
        value = dataset.static[:, place[name]].astype(np.float64)
        value = np.expm1(value) if is_log else value
        has = dataset.static[:, place[missing]] == 0 if missing else np.ones(len(value), bool)
        seen = _Seen(1)
        seen.add(dataset.subject[chosen], has[chosen, None])
        known = value[train][has[train]]
        row = {"name": name, "title": title, "unit": unit, "kind": "share" if name == "sex_female" else "numeric"}
        rows.append(row | seen.counts(0) | _quartiles(known, row["kind"]))
    return rows


def _series(dataset: SampleDataset, chosen: np.ndarray, of_values: np.ndarray) -> list[dict[str, Any]]:
    n = len(dataset.channels)
    seen = _Seen(n)
    for block in _blocks(dataset.subject, chosen):
        items = dataset.__getitems__(block)
        has = np.zeros((len(block), n), bool)
        has[np.repeat(np.arange(len(block)), items.n_observations), items.channel] = True
        seen.add(dataset.subject[block], has)
    values, channels = [], []
    for block in _blocks(dataset.subject, of_values):
        items = dataset.__getitems__(block)
        values.append(items.value)
        channels.append(items.channel.astype(np.uint16))
    value, channel = np.concatenate(values), np.concatenate(channels)
    order = np.argsort(channel, kind="stable")
    edges = np.searchsorted(channel[order], np.arange(n + 1))
    return [
        {"name": one.name, "title": one.name.replace("_", " "), "unit": one.unit, "kind": one.kind}
        | seen.counts(i)
        | _quartiles(value[order[edges[i] : edges[i + 1]]], one.kind)
        for i, one in enumerate(dataset.channels)
    ]


def _notes(dataset: SampleDataset, chosen: np.ndarray, least: int) -> list[dict[str, Any]]:
    """Return one row per kind of note, and how many words notes of this kind have."""
    notes = dataset.notes
    assert notes is not None
    kinds = [kind_name(code) for code in notes.codes] if notes.code is not None else ["note"]
    seen, read = _Seen(len(kinds)), [np.zeros(0, np.int64) for _ in kinds]
    for block in _blocks(dataset.subject, chosen):
        note, n_notes = dataset.seen_notes(block)
        code = notes.code[note] if notes.code is not None else np.zeros(len(note), np.int64)
        has = np.zeros((len(block), len(kinds)), bool)
        has[np.repeat(np.arange(len(block)), n_notes), code] = True
        seen.add(dataset.subject[block], has)
        for i in np.flatnonzero([len(part) < _NOTES_READ for part in read]).tolist():
            read[i] = np.union1d(read[i], note[code == i])[:_NOTES_READ]
    return [
        {"name": kind, "kind": "note", "unit": "words"} | seen.counts(i) | _words(notes, read[i])
        for i, kind in enumerate(kinds)
        if seen.patients[i] >= max(least, 1)
    ]


def _words(notes: Notes, rows: np.ndarray) -> dict[str, Any]:
    """Return the quartiles of the number of words in some notes."""
    return _quartiles(np.array([len(text.split()) for text in notes.texts(rows)], np.float64), "numeric")


def _quartiles(value: np.ndarray, kind: str) -> dict[str, Any]:
    """Return the quartiles of a number, or the mean of a share. An event has neither."""
    names = ("q1", "median", "q3")
    if kind == "share":
        return dict.fromkeys(names) | {"mean": rounded(value.mean())[0] if len(value) else None}
    if kind == "event" or not len(value):
        return dict.fromkeys(names)
    return dict(zip(names, rounded(np.quantile(value, QUARTILES)), strict=True))
