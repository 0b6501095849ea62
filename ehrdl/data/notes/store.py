"""The store of notes: memory-mapped Arrow tables of their texts and their tokens, ordered by (subject, available).

The table of texts depends on no task or tokenizer. There is one table of tokens per tokenizer. `notes/build.py` writes
both tables. Tokens are read as slices of the Arrow buffers, without a copy. `window.bounds` over `available` decides
which notes a sample may see, as for every fact. A verbalised record is the exception. It belongs to one sample, and
only that sample reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrdl.engine.files import read_json, write_json

if TYPE_CHECKING:
    from datasets import Dataset

#: The prefix of note codes. The kind of filler chunks, and of text of a kind that the training notes lack.
NOTE, OTHER = "NOTE//", "other"

_ROWS_A_BATCH = 1000
_SECTIONS = ("offsets", "length", "name")


@dataclass(frozen=True)
class Sections:
    """The sections of notes, memory-mapped: note i has the sections [offsets[i], offsets[i + 1]).

    Attributes:
        offsets: (n_notes + 1,) int64, the first section of each note, and the number of all sections.
        length: (n_sections,) int32, number of tokens in each section.
        name: (n_sections,) int32, index into `names`.
        names: the standard names of headings; the first is empty, for text before any heading.
    """

    offsets: np.ndarray
    length: np.ndarray
    name: np.ndarray
    names: tuple[str, ...]

    def followed_by(self, other: Sections) -> Sections:
        """Return these sections followed by the sections of `other`, which belong to the notes that come next."""
        return Sections(
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.length, other.length]),
            np.concatenate([self.name, len(self.names) + other.name]),
            self.names + other.names,
        )


@dataclass(frozen=True)
class Notes:
    """The notes of all subjects, opened from a folder. Verbalised records may follow as the last rows.

    Attributes:
        available, time: (n_notes,) int64 [µs], when each note became available, and the note's own time. Notes are
            ordered by these times within each subject.
        subjects, offsets: subject i owns notes [offsets[i], offsets[i + 1]).
        text: the `datasets` table with the columns subject_id, available, time, code, text.
        tokens: token ids of each note, without special tokens; None until tokenised.
        sections: the sections of the tokens; None if notes were not split.
        code: (n_notes,) int32, index into `codes`; None = unknown.
        codes: the codes of the notes, such as `NOTE//discharge//DS`.
        record_subjects: the subject_id of each verbalised record; empty = there are no records. Records are the last
            rows, one per sample in the order of SAMPLES. Only sample i reads row `first_record + i`. Records are in no
            slice of `offsets`.
    """

    available: np.ndarray
    time: np.ndarray
    subjects: np.ndarray
    offsets: np.ndarray
    text: Dataset
    tokens: TokenLists | None = None
    sections: Sections | None = None
    code: np.ndarray | None = None
    codes: tuple[str, ...] = ()
    record_subjects: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.available)

    @property
    def n_records(self) -> int:
        """The number of verbalised records, which are the last rows."""
        return len(self.record_subjects)

    @property
    def first_record(self) -> int:
        """The row of the first verbalised record, which belongs to the first sample."""
        return len(self) - self.n_records

    def owners(self) -> np.ndarray:
        """Return the subject_id of every row, notes and records, (n_notes,)."""
        return np.concatenate([np.repeat(self.subjects, np.diff(self.offsets)), self.record_subjects])

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return the texts of the notes in the given rows."""
        return list(self.text.select(np.asarray(rows, dtype=np.int64))["text"]) if len(rows) else []


class TokenLists:
    """The token ids of each note, by row. They are slices of memory-mapped Arrow buffers, without a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column
        offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._values = [chunk.values.to_numpy(zero_copy_only=True) for chunk in column.chunks]
        self._starts = np.cumsum([0] + [len(chunk) for chunk in column.chunks])
        self._first = np.concatenate([o[:-1] for o in offsets]) if offsets else np.zeros(0, np.int32)
        self.lengths = np.concatenate([np.diff(o) for o in offsets]) if offsets else np.zeros(0, np.int32)

    def __getitem__(self, row: int) -> np.ndarray:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        first = self._first[row]
        tokens: np.ndarray = self._values[part][first : first + self.lengths[row]]
        return tokens

    def flat(self, rows: np.ndarray) -> np.ndarray:
        """Return the token ids of the given rows in one array, one row after the other."""
        part = np.searchsorted(self._starts, rows, side="right") - 1
        first = self._first[rows]
        pieces = zip(part.tolist(), first.tolist(), (first + self.lengths[rows]).tolist(), strict=True)
        found = [self._values[i][start:stop] for i, start, stop in pieces]
        return np.concatenate(found) if found else np.zeros(0, np.int32)


def open_notes(folder: Path, tokens: Path | None = None) -> Notes:
    """Open notes as memory-mapped tables, with their tokens if a token folder is given.

    Args:
        folder: the folder that `build.collect` wrote.
        tokens: the folder that `build.tokenize` wrote; None = without tokens.
    """
    from datasets import Dataset

    text = Dataset.from_file(str(folder / "text.arrow"))
    columns = {name: text.data.column(name).to_numpy() for name in ("subject_id", "available", "time")}
    subjects, first = np.unique(columns["subject_id"], return_index=True)
    offsets = np.r_[first, len(text)].astype(np.int64)
    lists, sections = None, None
    if tokens is not None:
        lists = TokenLists(Dataset.from_file(str(tokens / "tokens.arrow")).data.column("tokens"))
        sections = _open_sections(tokens)
    codes = text.data.column("code").combine_chunks().dictionary_encode()
    return Notes(
        columns["available"],
        columns["time"],
        subjects,
        offsets,
        text,
        lists,
        sections,
        codes.indices.to_numpy(),
        tuple(codes.dictionary.to_pylist()),
    )


def write_sections(folder: Path, tables: Sequence[pa.Table]) -> None:
    """Write the sections of notes into the folder of their tokens.

    Args:
        folder: the folder of the token table.
        tables: tables with one row per note, in order. The list column `section` has the names of the note's sections,
            and `section_tokens` has their numbers of tokens.
    """
    names: dict[str, int] = {"": 0}
    n_sections, length, name = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for table in tables:
        n_sections.append(table["section"].combine_chunks().value_lengths().to_numpy())
        length.append(table["section_tokens"].combine_chunks().flatten().to_numpy())
        coded = table["section"].combine_chunks().flatten().dictionary_encode()
        place = np.array([names.setdefault(one, len(names)) for one in coded.dictionary.to_pylist()], np.int32)
        name.append(place[coded.indices.to_numpy()])
    offsets: np.ndarray = np.cumsum(np.concatenate(n_sections))
    for key, array in zip(_SECTIONS, (offsets, np.concatenate(length), np.concatenate(name)), strict=True):
        np.save(folder / f"section_{key}.npy", array)
    write_json(folder / "sections.json", list(names))


def _open_sections(folder: Path) -> Sections | None:
    """Open the sections stored with a token table; None if it has none."""
    if not (folder / "sections.json").is_file():
        return None
    arrays = {name: np.asarray(np.load(folder / f"section_{name}.npy", mmap_mode="r")) for name in _SECTIONS}
    return Sections(**arrays, names=tuple(read_json(folder / "sections.json")))


def kind_name(code: str, section: str = "") -> str:
    """Return the kind of a note: its code without `NOTE//`, followed by the name of a section if one is given.

    >>> kind_name("NOTE//discharge//AD"), kind_name("NOTE//discharge//DS", "physical exam")
    ('discharge//AD', 'discharge//DS//physical exam')
    """
    kind = code.removeprefix(NOTE)
    return f"{kind}//{section}" if section else kind


def with_records(notes: Notes | None, records: Notes) -> Notes:
    """Return the hospital's notes, if there are any, followed by the samples' verbalised records.

    Args:
        notes: the opened notes; None = there are none.
        records: the records, one per sample in the order of SAMPLES, opened with `open_notes`. They must be tokenised
            if the notes are.
    """
    from datasets import concatenate_datasets

    own = np.repeat(records.subjects, np.diff(records.offsets))
    if notes is None or not len(notes):
        none = np.zeros(0, np.int64)
        return replace(records, subjects=none, offsets=np.zeros(1, np.int64), record_subjects=own)
    tokens = sections = None
    if notes.tokens is not None and records.tokens is not None:
        tokens = TokenLists(pa.chunked_array([*notes.tokens.column.chunks, *records.tokens.column.chunks]))
    if notes.sections is not None and records.sections is not None:
        sections = notes.sections.followed_by(records.sections)
    code, codes = None, notes.codes + records.codes
    if notes.code is not None and records.code is not None:
        code = np.concatenate([notes.code, records.code + len(notes.codes)])
    return replace(
        notes,
        available=np.concatenate([notes.available, records.available]),
        time=np.concatenate([notes.time, records.time]),
        text=concatenate_datasets([notes.text, records.text]),
        tokens=tokens,
        sections=sections,
        code=code,
        codes=codes,
        record_subjects=own,
    )


def bodies(notes: Notes, keep: np.ndarray | None = None) -> Iterator[list[str]]:
    """Yield the texts of notes in batches. If `keep` (n_notes,) bool is given, only its true rows are read."""
    for start in range(0, len(notes), _ROWS_A_BATCH):
        rows = np.arange(start, min(start + _ROWS_A_BATCH, len(notes)))
        yield notes.texts(rows if keep is None else rows[keep[rows]])
