"""Cuts notes into chunks, and chooses the chunks that are read for each sample.

A chunk is a run of at most `Chunking.room` tokens of one note. If notes are split into sections, a chunk lies within
one section. Batches, the token budget, length buckets and pretraining all use the two rules of this module. Which notes
a sample may see is decided before, by `window.bounds`.

Letters: B samples · C chunks · E links between chunks and samples · P pairs of a sample and one of its notes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ehrdl.data.config import Choice
from ehrdl.data.dataset import SampleDataset, positions
from ehrdl.data.notes.store import Notes, kind_name


@dataclass(frozen=True)
class Chunking:
    """The rules by which notes become chunks.

    Attributes:
        pad_id, cls_id, sep_id: token ids of padding, and of the special tokens at the start and the end of a chunk.
        chunk_tokens: the number of tokens per chunk, including the two special tokens.
        max_chunks: the largest number of chunks that are read per sample; None = all.
        choose: the rule by which chunks are kept if a sample has more than `max_chunks`.
        kinds: the kinds of note text, as in `DataSpec.note_kinds`; empty = all chunks are of kind 0.
    """

    pad_id: int
    cls_id: int
    sep_id: int
    chunk_tokens: int
    max_chunks: int | None = None
    choose: Choice = "latest"
    kinds: tuple[str, ...] = ()

    @property
    def room(self) -> int:
        """The number of note tokens that fit into a chunk, between the two special tokens at its ends."""
        return self.chunk_tokens - 2


@dataclass(frozen=True)
class Pieces:
    """The C chunks of some notes, one note after the other.

    Attributes:
        n: (n_notes,) number of chunks of each note; an empty note has none.
        start: (C,) position of each chunk's first token among its note's tokens.
        length: (C,) number of tokens in each chunk, without the two special tokens.
        kind: (C,) the kind of each chunk's text, an index into `Chunking.kinds`.
    """

    n: np.ndarray
    start: np.ndarray
    length: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Read:
    """The chunks that are read for each sample, as E links. A link connects one chunk to one sample that reads it.

    Attributes:
        note: (n_notes,) rows of the distinct notes that the samples see, in order of first appearance.
        pieces: the chunks of these notes.
        chunk: (E,) the chunk of each link, an index into `pieces`.
        pair: (E,) the sample and note of each link, an index into the P pairs that `Chunker.read` got.
    """

    note: np.ndarray
    pieces: Pieces
    chunk: np.ndarray
    pair: np.ndarray


_SAMPLES_A_BLOCK = 10_000
_NONE = np.zeros(0, np.int64)
NOTHING_READ = Read(_NONE, Pieces(_NONE, _NONE, _NONE, _NONE), _NONE, _NONE)


class Chunker:
    """Cuts notes into chunks, and chooses the chunks that are read for each sample.

    Args:
        notes: the tokenised notes.
        frame: the rules by which notes become chunks.
    """

    def __init__(self, notes: Notes, frame: Chunking) -> None:
        assert notes.tokens is not None
        self.frame, self.sections, self.lengths = frame, notes.sections, notes.tokens.lengths
        self.kinds = _kind_table(notes, frame.kinds)
        self.code = np.zeros(len(notes), np.int32) if notes.code is None else notes.code

    def cut(self, rows: np.ndarray) -> Pieces:
        """Cut the notes in the given rows into chunks.

        If notes are split into sections, each chunk lies within one section.
        """
        if self.sections is None:
            length = self.lengths[rows].astype(np.int64)
            n, within, kept = self._split(length)
            return Pieces(n, within, kept, np.repeat(self.kinds[self.code[rows], 0], n))
        first = self.sections.offsets[rows]
        n_parts = self.sections.offsets[rows + 1] - first
        part = positions(first, n_parts)
        length = self.sections.length[part].astype(np.int64)
        n, within, kept = self._split(length)
        before = np.cumsum(length) - length  # tokens before each section, over all these notes; next, within its note
        before -= np.repeat(np.cumsum(self.lengths[rows], dtype=np.int64) - self.lengths[rows], n_parts)
        kind = self.kinds[np.repeat(self.code[rows], n_parts), self.sections.name[part]]
        return Pieces(_sums(n, n_parts), np.repeat(before, n) + within, kept, np.repeat(kind, n))

    def _split(self, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut runs of tokens; return the number of chunks per run, and each chunk's start in its run and length."""
        n = -(-length // self.frame.room)
        within = positions(np.zeros_like(n), n) * self.frame.room
        return n, within, np.minimum(np.repeat(length, n) - within, self.frame.room)

    def read(self, note: np.ndarray, n_notes: np.ndarray) -> Read:
        """Choose the chunks that are read for each sample: all chunks of its notes, or at most `max_chunks` of them.

        Args:
            note: (P,) rows of the notes that the B samples see, one sample after the other; within a sample, oldest
                first.
            n_notes: (B,) number of notes that each sample sees.
        """
        distinct, of = _distinct(note)
        pieces = self.cut(distinct)
        n_links = pieces.n[of]
        n_chunks = _sums(n_links, n_notes)
        chunk = positions((np.cumsum(pieces.n) - pieces.n)[of], n_links)
        pair = np.repeat(np.arange(len(note)), n_links)
        at_most = self.frame.max_chunks
        if at_most is not None and n_chunks.max(initial=0) > at_most:
            place, n_kept = chosen(n_chunks, at_most, self.frame.choose)
            place += np.repeat(np.cumsum(n_chunks) - n_chunks, n_kept)
            chunk, pair = chunk[place], pair[place]
        return Read(distinct, pieces, chunk, pair)

    def brought(self, note: np.ndarray, n_notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each distinct chunk, the first sample that reads it and the number of note tokens in the chunk.

        Args:
            note: (P,) rows of the notes that the B samples see, one sample after the other; within a sample, oldest
                first.
            n_notes: (B,) number of notes that each sample sees.
        """
        sample = np.repeat(np.arange(len(n_notes)), n_notes)
        if self.frame.max_chunks is None:  # every sample that reads a note reads all of it
            distinct, first = np.unique(note, return_index=True)
            pieces = self.cut(distinct)
            return np.repeat(sample[first], pieces.n), pieces.length
        read = self.read(note, n_notes)
        chunk, first = np.unique(read.chunk, return_index=True)
        return sample[read.pair[first]], read.pieces.length[chunk]


def chosen(n: np.ndarray, at_most: int, choose: Choice) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most `at_most` chunks of each sample by the rule `choose`.

    `n` holds the number of chunks of each sample. Returned are two arrays: the positions of the kept chunks, sample by
    sample, and the number of kept chunks per sample.
    Position 0 is the oldest chunk of a sample. `latest` keeps the last chunks. `first_and_last` takes half from each
    end, and one more from the last end if `at_most` is odd. `even` spreads the chunks from the first to the last. If
    only one is kept, it is the latest.

    >>> for choose in ("latest", "first_and_last", "even"):
    ...     chosen(np.array([2, 10]), 4, choose)[0].tolist()
    [0, 1, 6, 7, 8, 9]
    [0, 1, 0, 1, 8, 9]
    [0, 1, 0, 3, 6, 9]
    """
    kept = np.minimum(n, at_most)
    nth = positions(np.zeros_like(kept), kept)
    left = np.repeat(n - kept, kept)
    if choose == "latest" or at_most == 1:
        return nth + left, kept
    if choose == "first_and_last":
        return nth + np.where(nth >= at_most // 2, left, 0), kept
    of, last = np.repeat(n - 1, kept), np.repeat(np.maximum(kept - 1, 1), kept)
    return nth * of // last, kept


def n_chunks(dataset: SampleDataset, frame: Chunking) -> np.ndarray:
    """Return the number of chunks in all notes that each sample sees, (n_samples,), whatever `max_chunks` is."""
    assert dataset.notes is not None
    cutter, total = Chunker(dataset.notes, frame), np.zeros(len(dataset), np.int64)
    for block, note, n_notes in dataset.note_blocks():
        distinct, of = np.unique(note, return_inverse=True)
        total[block] = _sums(cutter.cut(distinct).n[of], n_notes)
    return total


def n_tokens(dataset: SampleDataset, frame: Chunking | None) -> np.ndarray:
    """Return the number of note tokens in the chunks that are read for each sample, (n_samples,).

    This number is used to put samples of similar length into one batch.
    """
    if dataset.notes is None or frame is None or frame.max_chunks is None:
        return dataset.n_tokens()
    cutter, total = Chunker(dataset.notes, frame), np.zeros(len(dataset), np.int64)
    for block, note, n_notes in dataset.note_blocks(_SAMPLES_A_BLOCK):
        read = cutter.read(note, n_notes)
        sample = np.repeat(np.arange(len(n_notes)), n_notes)[read.pair]
        total[block] = np.bincount(sample, read.pieces.length[read.chunk], len(n_notes))
    return total


def _distinct(note: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct notes in order of first appearance, and the index of each pair's note among them (P,)."""
    found, first, pair = np.unique(note, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return found[order], rank[pair]


def _sums(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the sums of consecutive runs of `values` with the lengths `n`."""
    before, last = np.r_[0, np.cumsum(values)], np.cumsum(n)
    sums: np.ndarray = before[last] - before[last - n]
    return sums


def _kind_table(notes: Notes, kinds: tuple[str, ...]) -> np.ndarray:
    """Return the kind of each section in notes of each code (n_codes, n_section_names); 0 if it is not in `kinds`."""
    names = ("",) if notes.sections is None else notes.sections.names
    codes = notes.codes or ("",)
    place = {kind: i for i, kind in enumerate(kinds)}
    return np.array([[place.get(kind_name(code, name), 0) for name in names] for code in codes], np.int64)
