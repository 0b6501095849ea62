"""Limits the number of padded tokens per batch, so that long samples do not exhaust memory.

An observation counts as one token, like a token of a note. A note that several samples of a batch read is in the batch
only once, so it is counted once.
"""

from __future__ import annotations

import numpy as np

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Chunker, Chunking
from ehrdl.data.loading.collate import padded_chunks, padded_observations, padded_tokens


class TokenBudget:
    """Computes how many samples fit into a batch of limited size.

    Args:
        dataset: the dataset of the samples.
        frame: the rules by which notes become chunks; None = there are no notes.
        tokens: the largest size of a batch. It is the sum of its padded observations (samples x observations per
            sample) and its padded note tokens (chunks x tokens per chunk).
    """

    def __init__(self, dataset: SampleDataset, frame: Chunking | None, tokens: int) -> None:
        self.dataset, self.frame, self.tokens = dataset, frame, tokens
        notes = dataset.notes
        self.cutter = Chunker(notes, frame) if notes is not None and frame is not None else None

    def __call__(self, rows: np.ndarray) -> int:
        """Return how many of the given SAMPLES rows fit into one batch, counted from the first; at least 1."""
        size = self._observations(rows) + self._note_tokens(rows)
        return max(1, int(np.searchsorted(size, self.tokens, side="right")))

    def _observations(self, rows: np.ndarray) -> np.ndarray:
        """Return an upper bound of B x N for a batch of the first row, the first 2 rows, and so on."""
        longest = np.maximum.accumulate(self.dataset.n_observations(rows))
        size: np.ndarray = np.arange(1, len(rows) + 1) * padded_observations(longest)
        return size

    def _note_tokens(self, rows: np.ndarray) -> np.ndarray:
        """Return the exact C x L for a batch of the first row, the first 2 rows, and so on."""
        n_chunks, longest = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        if self.cutter is not None:
            sample, length = self.cutter.brought(*self.dataset.seen_notes(rows))
            n_chunks += np.bincount(sample, minlength=len(rows))
            np.maximum.at(longest, sample, length)
        chunk_tokens = self.frame.chunk_tokens if self.frame else None
        width = padded_tokens(np.maximum.accumulate(longest), chunk_tokens)
        size: np.ndarray = padded_chunks(np.cumsum(n_chunks)) * width
        return size
