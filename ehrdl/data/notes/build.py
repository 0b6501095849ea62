"""Writes the texts and the tokens of the notes in an EVENTS folder.

Notes are sorted shard by shard, merged by subject, and tokenised in pieces. No step holds more than one block of every
shard in memory. If a process is killed, its finished work is kept.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrdl.data.notes.sections import has_sections, keep_sections, mask_section, split_sections
from ehrdl.data.notes.store import Notes, write_sections
from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, whole, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import map_shards
from ehrdl.events.listing import shard_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

#: Increased whenever `collect` or `tokenize` would write other bytes for the same input.
VERSION = 9

_ROWS_A_BATCH = 1000
_ROWS_MERGED = 100
_NOTES_A_PIECE = 4000
_TOKENS = pa.schema([("tokens", pa.list_(pa.int32()))])
_SPLIT = pa.schema([*_TOKENS, ("section", pa.list_(pa.string())), ("section_tokens", pa.list_(pa.int32()))])
_NOTES = """
    SELECT subject_id, epoch_us(available_time) AS available, epoch_us(time) AS time, code, text_value AS text
    FROM {rows}
    WHERE code LIKE 'NOTE//%' AND text_value IS NOT NULL AND available_time IS NOT NULL
    ORDER BY subject_id, available, time, code, text
"""
#: Code prefixes of discharge summaries (with their addenda), of the addenda alone, and of radiology reports.
_SUMMARY, _ADDENDUM, _REPORT = "NOTE//discharge", "NOTE//discharge//AD", "NOTE//radiology"


def collect(
    events: Path, out: Path, prepare: Prepare, mask_sections: Sequence[str] = (), keep_sections: Sequence[str] = ()
) -> None:
    """Write the texts of all notes in an EVENTS folder into `out`, ordered by subject and available time.

    Each shard's notes are sorted separately, then merged by subject. Shards that a killed process finished are kept.

    Args:
        events: the EVENTS folder.
        out: the output folder, which gets `text.arrow` and `sections.json`. `sections.json` has counts of notes. For
            each section, it counts the notes in which the section was cut, and the notes in which the section was kept.
            For each code, it counts the notes that were left out.
        prepare: the options of data preparation, which limit memory and processes.
        mask_sections: headings of sections in discharge summaries and radiology reports; the text below them is cut.
        keep_sections: headings of the only sections that are kept in discharge summaries; empty = all sections. A
            summary that has none of them is left out. An addendum without headings is kept whole.
    """
    files = shard_files(events)
    parts = out / ".parts"
    parts.mkdir(exist_ok=True)
    size = sum(file.stat().st_size for file in files)
    job = _Shard(prepare, tuple(mask_sections), tuple(keep_sections), min(prepare.processes(size), len(files)))
    jobs = [(file, parts / f"{i}.arrow") for i, file in enumerate(files)]
    found = _no_sections(mask_sections, keep_sections)
    for counts in map_shards(job, jobs, prepare, size, "notes"):
        for what, n_notes in counts.items():
            found[what].update(n_notes)
    _merge([part for _, part in jobs], out / "text.arrow")
    write_json(out / "sections.json", found)
    shutil.rmtree(parts)


def _no_sections(mask: Sequence[str], keep: Sequence[str]) -> dict[str, Counter[str]]:
    counted = {"masked": Counter(dict.fromkeys(mask, 0)), "kept": Counter(dict.fromkeys(keep, 0))}
    return counted | {"left_out": Counter()}


@dataclass(frozen=True)
class _Shard:
    """Sorts the notes of one shard; it is a class so that joblib can send it to a process."""

    prepare: Prepare
    mask: tuple[str, ...]
    keep: tuple[str, ...]
    share: int

    def __call__(self, job: tuple[Path, Path]) -> dict[str, dict[str, int]]:
        file, part = job
        done = part.with_suffix(".json")
        if done.is_file():
            counts: dict[str, dict[str, int]] = read_json(done)
            return counts
        found = _no_sections(self.mask, self.keep)
        with whole(part) as beside, connect(self.prepare, part.parent, self.share) as con:
            con.execute("SET preserve_insertion_order = true")
            reader = con.sql(_NOTES.format(rows=scan(file))).to_arrow_reader(_ROWS_A_BATCH)
            with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
                for batch in reader:
                    for start in range(0, batch.num_rows, _ROWS_MERGED):  # the rows of a shard that the merge holds
                        few = batch.slice(start, _ROWS_MERGED)
                        writer.write_batch(self._cut(few, found) if self.mask or self.keep else few)
        write_json(done, found)
        return {what: dict(n_notes) for what, n_notes in found.items()}

    def _cut(self, batch: pa.RecordBatch, found: dict[str, Counter[str]]) -> pa.RecordBatch:
        """Cut the notes of a batch, and count the cuts in `found`; notes that are then empty are left out."""
        texts = batch["text"].to_pylist()
        for row, code in enumerate(batch["code"].to_pylist()):
            texts[row], masked, kept = cut_note(code, texts[row], self.mask, self.keep)
            found["masked"].update(masked)
            found["kept"].update(kept)
            if texts[row] is None:
                found["left_out"][code] += 1
        field = batch.schema.field("text")
        cut = batch.set_column(batch.schema.get_field_index("text"), field, pa.array(texts, field.type))
        return cut.filter(pc.is_valid(cut["text"]))


class _Cursor:
    """Reads a sorted part from its beginning, some rows at a time. It holds one small block in memory."""

    def __init__(self, stack: ExitStack, part: Path) -> None:
        self._reader = stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(part)))))
        self._block: pa.Table = self._reader.schema.empty_table()

    def take(self, n_rows: int) -> list[pa.Table]:
        """Return the next `n_rows` rows, as a list of tables."""
        found = []
        while n_rows:
            if not self._block.num_rows:
                self._block = pa.Table.from_batches([self._reader.read_next_batch()])
            piece = self._block.slice(0, n_rows)
            self._block = self._block.slice(piece.num_rows)
            n_rows -= piece.num_rows
            found.append(piece)
        return found


def _merge(parts: list[Path], target: Path) -> None:
    """Merge parts into one file in the order of subjects; all notes of a subject are in one part, in order."""
    subjects = [_subjects(part) for part in parts]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in subjects])
    order = np.argsort(np.concatenate(subjects), kind="stable")
    owner = owner[order]
    with ExitStack() as stack:
        cursors = [_Cursor(stack, part) for part in parts]
        schema = cursors[0]._reader.schema
        sink = stack.enter_context(pa.OSFile(str(target), "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(sink, schema))
        for start in range(0, len(owner), _ROWS_A_BATCH):
            block = owner[start : start + _ROWS_A_BATCH]
            used, counts = np.unique(block, return_counts=True)
            pieces = [piece for i, n in zip(used, counts, strict=True) for piece in cursors[i].take(int(n))]
            # The pieces are in order of parts; each row of the block takes the next row of its own part.
            place = np.empty(len(block), np.int64)
            place[np.argsort(block, kind="stable")] = np.arange(len(block))
            rows = pa.concat_tables(pieces).combine_chunks().take(place).combine_chunks()
            writer.write_table(rows, max_chunksize=_ROWS_A_BATCH)


def _subjects(part: Path) -> np.ndarray:
    """Read the subject_id of every row, a block at a time; the texts are skipped."""
    with pa.OSFile(str(part)) as source, pa.ipc.open_stream(source) as reader:
        found = [batch.column("subject_id").to_numpy() for batch in reader]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def cut_note(code: str, text: str, mask: Sequence[str], keep: Sequence[str]) -> tuple[str | None, set[str], set[str]]:
    r"""Cut the sections `mask` out of a note, and keep only the sections `keep` of a discharge summary.

    The first result is the text that models read, or None if nothing is kept. The others are the headings of the
    sections that were cut, and of the sections that were kept.

    >>> cut_note("NOTE//discharge//DS", "Social History:\nAlone\n", [], ["Physical Exam"])
    (None, set(), set())
    >>> cut_note("NOTE//discharge//AD", "The culture grew.", [], ["Physical Exam"])  # an addendum has no headings
    ('The culture grew.', set(), set())
    """
    is_summary, masked = code.startswith(_SUMMARY), set()
    if is_summary or code.startswith(_REPORT):
        for section in mask:
            text, is_found = mask_section(text, section, is_report=not is_summary)
            masked |= {section} if is_found else set()
    if not keep or not is_summary or (code.startswith(_ADDENDUM) and not has_sections(text)):
        return text, masked, set()
    text, kept = keep_sections(text, keep)
    return text if kept else None, masked, kept


def tokenize(
    notes: Notes, tokenizer: PreTrainedTokenizerFast, out: Path, prepare: Prepare, by_section: bool = False
) -> None:
    """Write the token ids of every note into the folder `out`. Notes are not truncated, and get no special tokens.

    With `by_section`, sections are tokenised one by one, so that no token depends on the text of a neighbouring
    section. WordPiece then gives the same tokens as for the whole note. A byte-level tokenizer may split the blanks
    between two sections differently.

    Args:
        notes: the notes with their texts.
        tokenizer: a fast tokenizer.
        out: the output folder, which gets `tokens.arrow`, and the sections if `by_section` is true. If a killed process
            has tokenised some pieces there, they are kept.
        prepare: the options of data preparation, which set the number of processes.
        by_section: whether notes are split into sections.
    """
    parts = out / ".parts"
    parts.mkdir(exist_ok=True)
    [source] = {file["filename"] for file in notes.text.cache_files}
    size = Path(source).stat().st_size
    alone = prepare.engine == "local" and min(prepare.processes(size), -(-len(notes) // _NOTES_A_PIECE)) == 1
    job = _Tokenize(Path(source), parts, tokenizer.backend_tokenizer.to_str(), alone, by_section)
    pieces = map_shards(job, range(0, len(notes), _NOTES_A_PIECE), prepare, size, "tokenize")
    sections = []
    with pa.OSFile(str(out / "tokens.arrow"), "wb") as sink, pa.ipc.new_stream(sink, _TOKENS) as writer:
        for piece in pieces:
            with pa.OSFile(str(piece)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    writer.write_batch(batch.select(["tokens"]))
                    if by_section:
                        sections.append(pa.Table.from_batches([batch.select(["section", "section_tokens"])]))
    if by_section:
        write_sections(out, sections)
    shutil.rmtree(parts)


@dataclass(frozen=True)
class _Tokenize:
    """Tokenises a run of notes; it is a class so that joblib can send it to a process."""

    source: Path
    parts: Path
    tokenizer: str
    alone: bool
    by_section: bool

    def __call__(self, first: int) -> Path:
        from tokenizers import Tokenizer

        piece = self.parts / f"{first}.arrow"
        if piece.is_file():
            return piece
        if not self.alone:  # the other processes use the other cores
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        # Notes are cut into chunks later. Some pretrained tokenizers are saved with truncation on, which would silently
        # drop the end of a note.
        backend = Tokenizer.from_str(self.tokenizer)
        backend.no_truncation()
        backend.no_padding()
        encode = self._by_section if self.by_section else self._whole
        schema = _SPLIT if self.by_section else _TOKENS
        with (
            whole(piece) as beside,
            pa.OSFile(str(beside), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            for texts in _texts(self.source, first, first + _NOTES_A_PIECE):
                writer.write_batch(pa.record_batch(encode(backend, texts), schema=schema))
        return piece

    @staticmethod
    def _whole(backend: Tokenizer, texts: list[str]) -> list[pa.Array]:
        ids = [item.ids for item in backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [pa.array(ids, _TOKENS.field("tokens").type)]

    @staticmethod
    def _by_section(backend: Tokenizer, texts: list[str]) -> list[pa.Array]:
        """Return the tokens of each note, the names of its sections, and the number of tokens in each section."""
        notes = [split_sections(text) for text in texts]
        bodies = [text[s.start : s.stop] for text, note in zip(texts, notes, strict=True) for s in note]
        ids = [item.ids for item in backend.encode_batch_fast(bodies, add_special_tokens=False)]
        lengths = np.array([len(one) for one in ids], np.int32)
        of_note = np.r_[0, np.cumsum([len(note) for note in notes])].astype(np.int32)
        of_token = np.r_[0, np.cumsum(lengths)].astype(np.int32)[of_note]
        flat = pa.array(list(chain.from_iterable(ids)), pa.int32())
        names = pa.array([section.name for note in notes for section in note], pa.string())
        starts = pa.array(of_note)
        columns = (pa.array(of_token), flat), (starts, names), (starts, pa.array(lengths))
        return [pa.ListArray.from_arrays(*column) for column in columns]


def _texts(source: Path, first: int, stop: int) -> Iterator[list[str]]:
    """Yield the texts of notes [first, stop), in batches."""
    from datasets import Dataset

    text = Dataset.from_file(str(source))
    for start in range(first, min(stop, len(text)), _ROWS_A_BATCH):
        yield list(text.select(range(start, min(start + _ROWS_A_BATCH, stop, len(text))))["text"])
