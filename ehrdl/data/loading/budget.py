"""How many samples make a batch when its size is counted in padded tokens, so that long samples do not fill a memory.

Observations and note tokens each count as one. A note that several samples of a batch read is in the batch once, and is
counted once.
"""

from __future__ import annotations

import numpy as np

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Cutter, NoteFrame
from ehrdl.data.loading.collate import padded_chunks, padded_observations, padded_tokens


class TokenBudget:
    """Counts how many samples fit.

    Args:
        dataset: the samples.
        frame: how notes become chunks; None without notes.
        tokens: padded observations (B x N) and note tokens (C x L) that a batch may have.
    """

    def __init__(self, dataset: SampleDataset, frame: NoteFrame | None, tokens: int) -> None:
        self.dataset, self.frame, self.tokens = dataset, frame, tokens
        notes = dataset.notes
        self.cutter = Cutter(notes, frame) if notes is not None and frame is not None else None

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
        if self.cutter is not None:
            sample, length = self.cutter.brought(*self.dataset.seen_notes(rows))
            n_chunks += np.bincount(sample, minlength=len(rows))
            np.maximum.at(longest, sample, length)
        chunk_tokens = self.frame.chunk_tokens if self.frame else None
        width = padded_tokens(np.maximum.accumulate(longest), chunk_tokens)
        size: np.ndarray = padded_chunks(np.cumsum(n_chunks)) * width
        return size
