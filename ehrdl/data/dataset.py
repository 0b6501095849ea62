"""The dataset of samples. A sample is a slice of prepared arrays, so that almost nothing is computed when it is read.

When the dataset is made, `window.bounds` decides once which facts and notes each sample sees. The result takes 24 bytes
per sample for the series store, and 16 for the notes. Samples are read many at a time, since one numpy call for a batch
costs as much as one for a single sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.batch import ChannelSpec
from ehrdl.data.notes.store import Notes
from ehrdl.data.series.store import Store
from ehrdl.data.window import Window, bounds, inside
from ehrdl.schema import HOUR

_MAPPED = ("available", "time", "channel", "value")
_HIDDEN = -1
_NEVER = np.iinfo(np.int64).min
_SAMPLES_A_BLOCK = 100_000
#: The tolerance for notes dated without an hour: a short stay's summary may be dated before its admission.
_SLACK_HOURS = 24.0


@dataclass(frozen=True)
class Items:
    """The inputs and labels of B samples. Observations and notes are stored one sample after the other.

    Attributes:
        row: (B,) int64, the row of each sample in SAMPLES.
        n_observations: (B,) int64, the number of observations of each sample.
        value: (sum of n_observations,) float32, the observed values in the unit of their channel.
        hours: (sum of n_observations,) float32, the time of each observation relative to the prediction [h].
        channel: (sum of n_observations,) int64, the channel of each observation, an index into the dataset's channels.
        static: (B, S) float32, the S static features.
        n_notes: (B,) int64, the number of notes of each sample.
        note: (sum of n_notes,) int64, the row of each note in the dataset's `Notes`.
        note_hours: (sum of n_notes,) float32, the time of each note relative to the prediction [h].
        own_stay: (sum of n_notes,) bool, whether each note belongs to the stay of its sample.
        label: (B, K) float32, the labels of the K outputs.
    """

    row: np.ndarray
    n_observations: np.ndarray
    value: np.ndarray
    hours: np.ndarray
    channel: np.ndarray
    static: np.ndarray
    n_notes: np.ndarray
    note: np.ndarray
    note_hours: np.ndarray
    own_stay: np.ndarray
    label: np.ndarray


class SampleDataset:
    """A map-style dataset for `torch.utils.data.DataLoader`. It gives the visible inputs and the labels of each sample.

    Args:
        samples: the SAMPLES table, sorted by subject_id and prediction_time.
        static: the S static features of each sample, (n_samples, S) float32.
        store: the series store with the observations of all subjects.
        notes: the notes of all subjects; None = there are no notes.
        window: how far before the prediction time observations and notes are read, and how many of them.
        channels: the series channels to load, in the order of `Batch.channel`. They are matched by name. The store's
            other channels are never loaded, and a channel that the store lacks has no values.
        since_admission: the hours from the last admission to the prediction time, (n_samples,) [h], from
            `hours_since_admission`. None = every note counts as a note of the sample's own stay.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        static: np.ndarray,
        store: Store,
        notes: Notes | None,
        window: Window,
        channels: Sequence[ChannelSpec],
        since_admission: np.ndarray | None = None,
    ) -> None:
        # Plain arrays over the mapped files: slicing numpy's memmap class costs several times as much.
        mapped: dict[str, Any] = {name: np.asarray(getattr(store, name)) for name in _MAPPED}
        self.store, self.notes, self.window, self.static = replace(store, **mapped), notes, window, static
        self.channels, self.since_admission = tuple(channels), since_admission
        place = {channel.name: i for i, channel in enumerate(self.channels)}
        self.place = np.array([place.get(channel.name, _HIDDEN) for channel in store.channels], dtype=np.int64)
        self.time = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
        self.subject = samples.subject_id.to_numpy()
        self.span, self.note_span = round(window.series_hours * HOUR), round(window.note_hours * HOUR)
        self.start, self.stop = self._bounds(self.store, self.span)
        self.note_start, self.note_stop = self._bounds(notes, self.note_span)
        if notes is not None and notes.n_records not in (0, len(samples)):
            raise ValueError(f"{notes.n_records} verbalised records for {len(samples)} samples; each sample has one")
        names = [name for name in samples.columns if name.startswith("label_")]
        self.label = samples[names].to_numpy(dtype=np.float32)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, row: int) -> Items:
        """Return the sample of one row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> Items:
        """Return the samples of some rows, in the order of `rows`; torch's loader calls this method if it exists."""
        at = np.asarray(rows, np.int64)
        t = self.time[at]
        time, value, channel, n_observations = self._facts(at)
        note, n_notes = self.seen_notes(at)
        return Items(
            row=at,
            n_observations=n_observations,
            value=value,
            hours=_hours(time, np.repeat(t, n_observations)),
            channel=channel,
            static=self.static[at],
            n_notes=n_notes,
            note=note,
            note_hours=(note_hours := self._note_hours(note, np.repeat(t, n_notes))),
            own_stay=self._own_stay(at, n_notes, note_hours),
            label=self.label[at],
        )

    def _facts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return time, value and channel of the samples' facts, and the number of facts per sample.

        Hidden facts and facts outside the window are dropped. Then the latest `max_observations` are kept.
        """
        slices = [slice(*pair) for pair in zip(self.start[rows].tolist(), self.stop[rows].tolist(), strict=True)]
        columns = self.store.time, self.store.value, self.store.channel
        time, value, channel = (np.concatenate([c[:0], *[c[part] for part in slices]]) for c in columns)
        place, n = self.place[channel], self.stop[rows] - self.start[rows]
        keep = inside(time, np.repeat(self.time[rows], n), self.span) & (place != _HIDDEN)
        keep, n = _latest(keep, n, self.window.max_observations)
        return (time, value, place, n) if keep.all() else (time[keep], value[keep], place[keep], n)

    def note_rows(self, row: int) -> np.ndarray:
        """Return the rows of the notes that the sample in row `row` of SAMPLES sees, oldest first.

        These are the latest `max_notes` notes in the sample's window. If verbalised records are read, the sample's
        record comes last.
        """
        return self.seen_notes(np.array([row]))[0]

    def seen_notes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the notes that the samples in `rows` of SAMPLES see, and the number of notes per sample.

        Each note is given by its row in `Notes`. The first array lists the notes of one sample after the other, oldest
        first. `note_rows` states which notes a sample sees.
        """
        start, n = self.note_start[rows], self.note_stop[rows] - self.note_start[rows]
        note = positions(start, n)
        if self.notes is None:
            return note, n
        if len(note):
            keep = inside(self.notes.time[note], np.repeat(self.time[rows], n), self.note_span)
            keep, n = _latest(keep, n, self.window.max_notes)
            note = note[keep]
        if not self.notes.n_records:
            return note, n
        return np.insert(note, np.cumsum(n), self.notes.first_record + rows), n + 1

    def _note_hours(self, note: np.ndarray, t: np.ndarray) -> np.ndarray:
        return _hours(self.notes.time[note], t) if self.notes is not None else np.zeros(0, np.float32)

    def _own_stay(self, rows: np.ndarray, n_notes: np.ndarray, note_hours: np.ndarray) -> np.ndarray:
        """Return which notes (sum of n_notes,) belong to the sample's stay, from a day before its admission on."""
        if self.since_admission is None:
            return np.ones(len(note_hours), bool)
        own: np.ndarray = -note_hours <= np.repeat(self.since_admission[rows], n_notes) + _SLACK_HOURS
        return own

    def n_observations(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return an upper bound of the number of observations of each sample, or of the samples in `rows`.

        This number is used to put samples of similar length into one batch.
        """
        n: np.ndarray = np.minimum(self.stop[rows] - self.start[rows], self.window.max_observations)
        return n

    def n_tokens(self) -> np.ndarray:
        """Return the number of tokens in all notes that each sample sees, (n_samples,).

        This number is used to put samples of similar length into one batch.
        """
        total = np.zeros(len(self), np.int64)
        if self.notes is not None and self.notes.tokens is not None:
            lengths = self.notes.tokens.lengths
            for block, note, n in self.note_blocks():
                before, last = np.r_[0, np.cumsum(lengths[note], dtype=np.int64)], np.cumsum(n)
                total[block] = before[last] - before[last - n]
        return total

    def has_note(self) -> np.ndarray:
        """Return for each sample whether it sees at least one note, (n_samples,) bool."""
        seen = np.zeros(len(self), bool)
        for block, _, n in self.note_blocks():
            seen[block] = n > 0
        return seen

    def has_series(self) -> np.ndarray:
        """Return for each sample whether it sees at least one observation, (n_samples,) bool."""
        seen = np.zeros(len(self), bool)
        edges = np.flatnonzero(np.diff(self.subject)) + 1
        for first, last in zip([0, *edges.tolist()], [*edges.tolist(), len(self)], strict=True):
            if self.stop[last - 1] > self.start[first]:
                seen[first:last] = self._sees(slice(first, last))
        return seen

    def _sees(self, own: slice) -> np.ndarray:
        """Return whether each sample of one subject sees an observation; the latest visible fact decides."""
        start, stop = self.start[own], self.stop[own]
        shown = self.place[self.store.channel[start[0] : stop[-1]]] != _HIDDEN
        # A fact before a sample's slice was available before its window began, so it also happened before the window.
        latest = np.maximum.accumulate(np.where(shown, self.store.time[start[0] : stop[-1]], _NEVER))
        within = inside(latest[np.maximum(stop - 1 - start[0], 0)], self.time[own], self.span)
        sees: np.ndarray = (stop > start) & within
        return sees

    def note_blocks(self, size: int = _SAMPLES_A_BLOCK) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield consecutive blocks of at most `size` samples, with the notes that the samples of each block see.

        Yields:
            The slice of the block's rows in SAMPLES, and the two arrays that `seen_notes` returns for these rows.
        """
        for start in range(0, len(self), size):
            block = slice(start, min(start + size, len(self)))
            yield block, *self.seen_notes(np.arange(block.start, block.stop))

    def _bounds(self, facts: Store | Notes | None, span: int) -> tuple[np.ndarray, np.ndarray]:
        if facts is None:
            return np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        return bounds(facts.available, facts.offsets, facts.subjects, self.subject, self.time, span)


def positions(start: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return all integers of the slices [start[i], start[i] + n[i]), one slice after the other.

    >>> positions(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    last = np.cumsum(n)
    total = int(last[-1]) if len(last) else 0
    within: np.ndarray = np.arange(total) + np.repeat(start - (last - n), n)
    return within


def _latest(keep: np.ndarray, n: np.ndarray, at_most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries are among the last `at_most` kept entries of each sample, and their number per sample.

    Args:
        keep: whether each entry is kept, (sum of n,) bool, one sample after the other.
        n: (B,) entries per sample.
        at_most: the largest number of entries per sample.
    """
    before, last = np.r_[0, np.cumsum(keep)], np.cumsum(n)
    upto = before[last]
    n_kept = upto - before[last - n]
    if n_kept.max(initial=0) <= at_most:
        return keep, n_kept
    return keep & (np.repeat(upto, n) - before[1:] < at_most), np.minimum(n_kept, at_most)


def _hours(time: np.ndarray, t: int | np.ndarray) -> np.ndarray:
    """Return hours relative to the prediction time. Times are subtracted as integers: float32 cannot hold them."""
    hours: np.ndarray = ((time - t) / HOUR).astype(np.float32)
    return hours
