"""How many samples make a batch when its size is counted in padded tokens, so that long samples do not fill a memory.

Observations and note tokens each count as one. A note that several samples of a batch read is in the batch once, and is
counted once.
"""

from __future__ import annotations

import numpy as np

from ehrdl.data.collate import NoteFrame, padded_chunks, padded_observations, padded_tokens
from ehrdl.data.dataset import SampleDataset


class TokenBudget:
    """Counts how many samples fit.

    Args:
        dataset: the samples.
        frame: how notes become chunks; None without notes.
        tokens: padded observations (B x N) and note tokens (C x L) that a batch may have.
    """

    def __init__(self, dataset: SampleDataset, frame: NoteFrame | None, tokens: int) -> None:
        self.dataset, self.frame, self.tokens = dataset, frame, tokens

    def __call__(self, rows: np.ndarray) -> int:
        """How many of some SAMPLES rows, from the first on, fit into one batch; at least one, however long it is."""
        size = self._observations(rows) + self._note_tokens(rows)
        return max(1, int(np.searchsorted(size, self.tokens, side="right")))

    def _observations(self, rows: np.ndarray) -> np.ndarray:
        """B x N of a batch of the first 1, 2, … rows; an upper bound, as `n_observations` is."""
        longest = np.maximum.accumulate(self.dataset.n_observations(rows))
        size: np.ndarray = np.arange(1, len(rows) + 1) * padded_observations(longest)
        return size

    def _note_tokens(self, rows: np.ndarray) -> np.ndarray:
        """C x L of a batch of the first 1, 2, … rows, exactly."""
        n_chunks, longest = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        notes, frame = self.dataset.notes, self.frame
        if notes is not None and notes.tokens is not None and frame is not None:
            note, n_notes = self.dataset.seen_notes(rows)
            distinct, first = np.unique(note, return_index=True)
            sample = np.repeat(np.arange(len(rows)), n_notes)[first]  # the one that brings the note into the batch
            length = notes.tokens.lengths[distinct].astype(np.int64)
            np.add.at(n_chunks, sample, frame.n_chunks(length))
            np.maximum.at(longest, sample, np.minimum(length, frame.room))
        chunk_tokens = frame.chunk_tokens if frame else None
        width = padded_tokens(np.maximum.accumulate(longest), chunk_tokens)
        size: np.ndarray = padded_chunks(np.cumsum(n_chunks)) * width
        return size
