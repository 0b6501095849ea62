"""Items to one `Batch`: series padded, note chunks as one flat list in which each chunk stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ehrdl.batch import Batch
from ehrdl.data.dataset import Item
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


class Collate:
    """Makes a Batch of items.

    Args:
        notes: tokenised notes, or None: then the one chunk group is filler.
        frame: how a note is cut into chunks; needed with notes.
    """

    def __init__(self, notes: Notes | None, frame: NoteFrame | None) -> None:
        self.notes, self.frame = notes, frame

    def __call__(self, items: Sequence[Item]) -> Batch:
        """The batch of some items, in their order."""
        links = self._links(items)
        return Batch(
            row=torch.tensor([item.row for item in items], dtype=torch.int64),
            **self._series(items),
            static=torch.from_numpy(np.stack([item.static for item in items])),
            **links,
            label=torch.from_numpy(np.stack([item.label for item in items])),
        )

    def _series(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        longest = max(len(item.value) for item in items)
        shape = (len(items), _up(max(longest, 1), _OBSERVATIONS))
        value, hours = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        channel, valid = np.zeros(shape, np.int64), np.zeros(shape, bool)
        for i, item in enumerate(items):
            n = len(item.value)
            value[i, :n], hours[i, :n], channel[i, :n], valid[i, :n] = item.value, item.hours, item.channel, True
        arrays = {"value": value, "hours": hours, "channel": channel, "valid": valid}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _links(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Chunks, each once, and which sample reads which; fillers have one valid token and link to sample B."""
        chunks: list[np.ndarray] = []
        first: dict[int, range] = {}
        links: list[tuple[int, int, float]] = []
        for sample, item in enumerate(items):
            for note, hours in zip(item.note.tolist(), item.note_hours.tolist(), strict=True):
                if note not in first:
                    pieces = self._chunks(note)
                    first[note] = range(len(chunks), len(chunks) + len(pieces))
                    chunks.extend(pieces)
                links.extend((chunk, sample, hours) for chunk in first[note])
        n_chunks = _up(max(len(chunks), 1), _CHUNKS)
        links.extend((chunk, len(items), 0.0) for chunk in range(len(chunks), n_chunks))
        tokens, token_valid = self._frame(chunks, n_chunks)
        link_chunk, link_sample, link_hours = zip(*links, strict=True)
        return {
            "tokens": torch.from_numpy(tokens),
            "token_valid": torch.from_numpy(token_valid),
            "link_chunk": torch.tensor(link_chunk, dtype=torch.int64),
            "link_sample": torch.tensor(link_sample, dtype=torch.int64),
            "link_hours": torch.tensor(link_hours, dtype=torch.float32),
        }

    def _chunks(self, note: int) -> list[np.ndarray]:
        """The whole note in pieces that fit between the framing tokens; an empty note has no piece."""
        assert self.notes is not None and self.notes.tokens is not None and self.frame is not None
        tokens, room = self.notes.tokens[note], self.frame.chunk_tokens - 2
        return [tokens[at : at + room] for at in range(0, len(tokens), room)]

    def _frame(self, chunks: list[np.ndarray], n_chunks: int) -> tuple[np.ndarray, np.ndarray]:
        pad = self.frame.pad_id if self.frame else 0
        longest = max((len(chunk) + 2 for chunk in chunks), default=1)
        width = _up(longest, _TOKENS)
        if self.frame:
            width = min(width, self.frame.chunk_tokens)
        tokens, valid = np.full((n_chunks, width), pad, np.int64), np.zeros((n_chunks, width), bool)
        for i, chunk in enumerate(chunks):
            assert self.frame is not None
            tokens[i, 0], tokens[i, 1 : len(chunk) + 1], tokens[i, len(chunk) + 1] = (
                self.frame.cls_id,
                chunk,
                self.frame.sep_id,
            )
            valid[i, : len(chunk) + 2] = True
        valid[len(chunks) :, 0] = True
        return tokens, valid


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
