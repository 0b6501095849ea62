"""Makes a `Batch` of tensors from samples: padded series, and a flat list that has each note chunk once.

Letters: B samples · N observations · C chunks · L tokens per chunk, as in `Batch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ehrdl.batch import Batch
from ehrdl.data.dataset import Items
from ehrdl.data.loading.chunks import NOTHING_READ, Chunker, Chunking, Read
from ehrdl.data.notes.store import Notes

#: Lengths are rounded up, so that batches have few distinct shapes (a compiled model recompiles for each shape).
_OBSERVATIONS = 32
_TOKENS = 16
_CHUNKS = 8


class Collate:
    """Makes a `Batch` of tensors from the NumPy arrays of some samples (`Items`).

    Args:
        notes: the tokenised notes. None = there are no notes. A batch then has only filler chunks, which no sample
            reads.
        frame: the rules by which notes become chunks; required if there are notes.
    """

    def __init__(self, notes: Notes | None, frame: Chunking | None) -> None:
        self.notes, self.frame = notes, frame
        self.cutter = Chunker(notes, frame) if notes is not None and frame is not None else None

    def __call__(self, items: Items) -> Batch:
        """Make the batch of some items, in their order."""
        arrays = {"row": items.row, "static": items.static, "label": items.label}
        arrays |= _series(items) | self._links(items)
        return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def _links(self, items: Items) -> dict[str, np.ndarray]:
        """Return the distinct chunks and their samples. A filler has one valid token and is linked to sample B."""
        read = self.cutter.read(items.note, items.n_notes) if self.cutter else NOTHING_READ
        is_read = np.zeros(len(read.pieces.length), bool)
        is_read[read.chunk] = True
        n_chunks = int(is_read.sum())
        filler = np.arange(n_chunks, padded_chunks(n_chunks))
        sample = np.repeat(np.arange(len(items.row)), items.n_notes)
        tokens, token_valid = self._frame(read, is_read, n_chunks + len(filler))
        return {
            "tokens": tokens,
            "token_valid": token_valid,
            "kind": np.concatenate([read.pieces.kind[is_read], np.zeros_like(filler)]),
            "link_chunk": np.concatenate([(np.cumsum(is_read) - 1)[read.chunk], filler]),
            "link_sample": np.concatenate([sample[read.pair], np.full(len(filler), len(items.row))]),
            "link_hours": np.concatenate([items.note_hours[read.pair], np.zeros(len(filler), np.float32)]),
            "link_own_stay": np.concatenate([items.own_stay[read.pair], np.zeros(len(filler), bool)]),
        }

    def _frame(self, read: Read, is_read: np.ndarray, n_chunks: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens (C, L) and their mask: the chunks that are read, each between its framing tokens.

        Args:
            read: the notes, cut into chunks.
            is_read: whether any sample reads each chunk.
            n_chunks: C, including fillers.
        """
        length = read.pieces.length[is_read]
        width = int(padded_tokens(length.max(initial=0), self.frame.chunk_tokens if self.frame else None))
        tokens = np.full((n_chunks, width), self.frame.pad_id if self.frame else 0, np.int64)
        n_valid = np.ones(n_chunks, np.int64)
        n_valid[: len(length)] = length + 2
        valid = np.arange(width) < n_valid[:, None]
        if len(length):
            assert self.notes is not None and self.notes.tokens is not None and self.frame is not None
            inner = self.notes.tokens.flat(read.note)
            real = tokens[: len(length)]
            real[:, 1:-1][valid[: len(length), 2:]] = (
                inner if is_read.all() else inner[np.repeat(is_read, read.pieces.length)]
            )
            real[:, 0] = self.frame.cls_id
            real[np.arange(len(length)), length + 1] = self.frame.sep_id
        return tokens, valid


def _series(items: Items) -> dict[str, np.ndarray]:
    """Return observations (B, N), padded after each sample's own observations with 0 and marked as not valid."""
    n = items.n_observations
    valid = np.arange(padded_observations(n.max(initial=0))) < n[:, None]
    place = np.flatnonzero(valid)
    arrays: dict[str, Any] = {"valid": valid}
    for name, kind in (("value", np.float32), ("hours", np.float32), ("channel", np.int64)):
        arrays[name] = np.zeros(valid.shape, kind)
        arrays[name].reshape(-1)[place] = getattr(items, name)
    return arrays


def padded_observations(longest: Any) -> Any:
    """Return the padded number of observations per sample in a batch.

    `longest` is the number of observations in the batch's longest sample. It may be an array, for several batches.
    """
    return _up(np.maximum(longest, 1), _OBSERVATIONS)


def padded_chunks(n_chunks: Any) -> Any:
    """Return the padded number of chunks in a batch with `n_chunks` chunks of notes.

    `n_chunks` may be an array, for several batches.
    """
    return _up(np.maximum(n_chunks, 1), _CHUNKS)


def padded_tokens(longest: Any, chunk_tokens: int | None) -> Any:
    """Return the padded number of tokens per chunk in a batch, including the two special tokens.

    `longest` is the number of note tokens in the batch's longest chunk, 0 if there are no notes. It may be an array,
    for several batches. The result is at most `chunk_tokens`, unless `chunk_tokens` is None.
    """
    width = _up(np.where(longest > 0, longest + 2, 1), _TOKENS)
    return width if chunk_tokens is None else np.minimum(width, chunk_tokens)


def _up(n: Any, step: int) -> Any:
    return -(-n // step) * step
