"""One sample at a time, by slicing: nothing is computed here that could be prepared before.

What a sample sees is decided once, by `window.bounds`, when the dataset is made: 24 bytes a sample over one store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ehrdl.batch import ChannelSpec
from ehrdl.data.notes import Notes
from ehrdl.data.store import Store
from ehrdl.data.window import HOUR, Window, bounds, inside

_HIDDEN = -1


@dataclass(frozen=True)
class Item:
    """What one sample sees. `channel` counts the dataset's channels; `note` holds rows of the notes."""

    row: int
    value: np.ndarray
    hours: np.ndarray
    channel: np.ndarray
    static: np.ndarray
    note: np.ndarray
    note_hours: np.ndarray
    label: np.ndarray


class SampleDataset:
    """Random access to what each sample sees; a map-style dataset for `torch.utils.data.DataLoader`.

    Args:
        samples: SAMPLES, sorted by subject_id and prediction_time.
        static: (n_samples, S) float32.
        store: the series.
        notes: the notes, or None.
        window: how far back each kind of fact is read.
        channels: the series channels to load, by name, in the order of `Batch.channel`. The store's others are never
            loaded; one that the store lacks is never seen.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        static: np.ndarray,
        store: Store,
        notes: Notes | None,
        window: Window,
        channels: Sequence[ChannelSpec],
    ) -> None:
        self.store, self.notes, self.window, self.static = store, notes, window, static
        self.channels = tuple(channels)
        place = {channel.name: i for i, channel in enumerate(self.channels)}
        self.place = np.array([place.get(channel.name, _HIDDEN) for channel in store.channels], dtype=np.int64)
        self.time = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
        subject = samples.subject_id.to_numpy()
        self.span = round(window.series_hours * HOUR)
        self.start, self.stop = bounds(store.available, store.offsets, store.subjects, subject, self.time, self.span)
        self.note_start, self.note_stop = self._note_bounds(subject)
        names = [name for name in samples.columns if name.startswith("label_")]
        self.label = samples[names].to_numpy(dtype=np.float32)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, row: int) -> Item:
        """The sample of a row."""
        keep = self._kept(row)
        t = self.time[row]
        rows = self.note_rows(row)
        note_time = self.notes.time[rows] if self.notes is not None else np.zeros(0, np.int64)
        return Item(
            row=int(row),
            value=self.store.value[keep],
            hours=((self.store.time[keep] - t) / HOUR).astype(np.float32),
            channel=self.place[self.store.channel[keep]],
            static=self.static[row],
            note=rows,
            note_hours=((note_time - t) / HOUR).astype(np.float32),
            label=self.label[row],
        )

    def _kept(self, row: int) -> np.ndarray | slice:
        """The facts of a sample: inside the window, not hidden, the latest `max_observations`."""
        start, stop = int(self.start[row]), int(self.stop[row])
        keep = inside(self.store.time[start:stop], self.time[row], self.span)
        keep &= self.place[self.store.channel[start:stop]] != _HIDDEN
        n_kept = int(keep.sum())
        if n_kept == stop - start:  # the usual case is a plain slice, without a copy
            return slice(max(start, stop - self.window.max_observations), stop)
        kept: np.ndarray = (start + np.flatnonzero(keep))[-self.window.max_observations :]
        return kept

    def note_rows(self, row: int) -> np.ndarray:
        """The notes that a sample sees, oldest first: the latest `max_notes` of its window."""
        rows: np.ndarray = np.arange(self.note_start[row], self.note_stop[row])
        if self.notes is None or not len(rows):
            return rows
        keep = inside(self.notes.time[rows], self.time[row], round(self.window.note_hours * HOUR))
        kept: np.ndarray = rows[keep][-self.window.max_notes :]
        return kept

    def n_observations(self) -> np.ndarray:
        """Upper bound of each sample's observations (n_samples,), for length buckets."""
        n: np.ndarray = np.minimum(self.stop - self.start, self.window.max_observations)
        return n

    def n_tokens(self) -> np.ndarray:
        """Tokens of the notes that each sample reads (n_samples,), for length buckets."""
        if self.notes is None or self.notes.tokens is None:
            return np.zeros(len(self), np.int64)
        lengths = self.notes.tokens.lengths
        return np.array([lengths[self.note_rows(row)].sum() for row in range(len(self))], dtype=np.int64)

    def _note_bounds(self, subject: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.notes is None:
            return np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        notes, span = self.notes, round(self.window.note_hours * HOUR)
        return bounds(notes.available, notes.offsets, notes.subjects, subject, self.time, span)
