"""Items to one `Batch`: series padded, note chunks as one flat list in which each chunk stands once.

Letters: B samples · N observations · C chunks · L tokens a chunk, as in `Batch`; P pairs of a sample and a note of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ehrdl.batch import Batch
from ehrdl.data.dataset import Item, Items, positions
from ehrdl.data.notes import Notes

#: Lengths are rounded up, so that a batch has few distinct shapes (a compiled model would recompile for each).
_OBSERVATIONS = 32
_TOKENS = 16
_CHUNKS = 8


@dataclass(frozen=True)
class NoteFrame:
    """How notes become chunks: ids of the framing tokens, and tokens a chunk with them."""

    pad_id: int
    cls_id: int
    sep_id: int
    chunk_tokens: int

    @property
    def room(self) -> int:
        """Tokens of a note that fit between the two that frame a chunk."""
        return self.chunk_tokens - 2

    def n_chunks(self, length: np.ndarray) -> np.ndarray:
        """How many chunks notes of so many tokens are cut into; an empty note has none."""
        n_chunks: np.ndarray = -(-length // self.room)
        return n_chunks


class Collate:
    """Makes a Batch of items.

    Args:
        notes: tokenised notes, or None: then the one chunk group is filler.
        frame: how a note is cut into chunks; needed with notes.
    """

    def __init__(self, notes: Notes | None, frame: NoteFrame | None) -> None:
        self.notes, self.frame = notes, frame

    def __call__(self, items: Items | Sequence[Item]) -> Batch:
        """The batch of some items, in their order."""
        items = items if isinstance(items, Items) else Items.join(items)
        arrays = {"row": items.row, "static": items.static, "label": items.label}
        arrays |= _series(items) | self._links(items)
        return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def _links(self, items: Items) -> dict[str, np.ndarray]:
        """Chunks, each once, and which sample reads which; fillers have one valid token and link to sample B."""
        note, pair = _distinct(items.note)
        n_pieces, length = self._pieces(note)
        first = np.cumsum(n_pieces) - n_pieces
        n_chunks = int(n_pieces.sum())
        filler = np.arange(n_chunks, padded_chunks(n_chunks))
        n_links = n_pieces[pair]  # (P,): a sample is linked to all chunks of each of its notes
        sample = np.repeat(np.arange(len(items.row)), items.n_notes)
        tokens, token_valid = self._frame(note, length, n_chunks + len(filler))
        return {
            "tokens": tokens,
            "token_valid": token_valid,
            "link_chunk": np.concatenate([positions(first[pair], n_links), filler]),
            "link_sample": np.concatenate([np.repeat(sample, n_links), np.full(len(filler), len(items.row))]),
            "link_hours": np.concatenate([np.repeat(items.note_hours, n_links), np.zeros(len(filler), np.float32)]),
        }

    def _pieces(self, note: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many chunks each note is cut into, and the note tokens in each chunk; an empty note has no chunk."""
        if not len(note):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        assert self.notes is not None and self.notes.tokens is not None and self.frame is not None
        length, room = self.notes.tokens.lengths[note].astype(np.int64), self.frame.room
        n_pieces = self.frame.n_chunks(length)
        before = positions(np.zeros_like(n_pieces), n_pieces) * room
        return n_pieces, np.minimum(np.repeat(length, n_pieces) - before, room)

    def _frame(self, note: np.ndarray, length: np.ndarray, n_chunks: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (C, L) and their mask: the whole notes in pieces that fit between the framing tokens.

        Args:
            note: the notes, in the order of their chunks.
            length: note tokens in each chunk that is no filler.
            n_chunks: C, with fillers.
        """
        pad = self.frame.pad_id if self.frame else 0
        width = int(padded_tokens(length.max(initial=0), self.frame.chunk_tokens if self.frame else None))
        tokens = np.full((n_chunks, width), pad, np.int64)
        n_valid = np.ones(n_chunks, np.int64)
        n_valid[: len(length)] = length + 2
        valid = np.arange(width) < n_valid[:, None]
        if len(length):
            assert self.notes is not None and self.notes.tokens is not None and self.frame is not None
            real = tokens[: len(length)]
            real[:, 1:-1][valid[: len(length), 2:]] = self.notes.tokens.flat(note)
            real[:, 0] = self.frame.cls_id
            real[np.arange(len(length)), length + 1] = self.frame.sep_id
        return tokens, valid


def _series(items: Items) -> dict[str, np.ndarray]:
    """Observations (B, N), each sample's first; 0 and not valid behind them."""
    n = items.n_observations
    valid = np.arange(padded_observations(n.max(initial=0))) < n[:, None]
    place = np.flatnonzero(valid)
    arrays: dict[str, Any] = {"valid": valid}
    for name, kind in (("value", np.float32), ("hours", np.float32), ("channel", np.int64)):
        arrays[name] = np.zeros(valid.shape, kind)
        arrays[name].reshape(-1)[place] = getattr(items, name)
    return arrays


def _distinct(note: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The notes of all pairs in the order in which they first appear, and which of them each pair (P,) is."""
    found, first, pair = np.unique(note, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return found[order], rank[pair]


def padded_observations(longest: Any) -> Any:
    """N of a batch whose longest sample has so many observations; works on arrays, as the two below."""
    return _up(np.maximum(longest, 1), _OBSERVATIONS)


def padded_chunks(n_chunks: Any) -> Any:
    """C of a batch with so many chunks of notes."""
    return _up(np.maximum(n_chunks, 1), _CHUNKS)


def padded_tokens(longest: Any, chunk_tokens: int | None) -> Any:
    """L of a batch whose longest chunk holds so many tokens of a note; 0 is a batch without notes."""
    width = _up(np.where(longest > 0, longest + 2, 1), _TOKENS)
    return width if chunk_tokens is None else np.minimum(width, chunk_tokens)


def _up(n: Any, step: int) -> Any:
    return -(-n // step) * step
