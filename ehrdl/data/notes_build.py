"""Writes the notes of an EVENTS folder: sorted a shard at a time, merged by subject, tokenised in pieces.

No step holds more than a block of every shard; what a killed process finished is kept.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ehrdl.data.notes import Notes
from ehrdl.engine import Prepare, connect, read_json, whole, write_json
from ehrdl.shards import map_shards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Raised whenever `collect` or `tokenize` would write other bytes for the same input.
VERSION = 5

_ROWS_A_BATCH = 1000
_ROWS_MERGED = 100
_NOTES_A_PIECE = 4000
_TOKENS = pa.schema([("tokens", pa.list_(pa.int32()))])
_NOTES = """
    SELECT subject_id, epoch_us(available_time) AS available, epoch_us(time) AS time, code, text_value AS text
    FROM '{file}'
    WHERE code LIKE 'NOTE//%' AND text_value IS NOT NULL AND available_time IS NOT NULL
    ORDER BY subject_id, available, time, code, text
"""
_SUMMARY = "NOTE//discharge"
# A line of its own, such as `Followup Instructions:` or `History of Present Illness:`. A line that goes on after the
# colon (`Mental Status: Clear`) stays in the section that it stands in: too much is safe, too little is a leak.
_HEADER = r"^[ \t]*[A-Z][a-z]+(?:[ \t]+(?:[A-Z][\w/&'-]*|of|on|or|and|the|to|for|in|with|at))*[ \t]*:[ \t]*$"


def collect(events: Path, out: Path, prepare: Prepare, mask_sections: Sequence[str] = ()) -> None:
    """Write all notes of an EVENTS folder into `out`, ordered by subject and availability.

    Each shard's notes are sorted apart, then merged by subject; shards that a killed process finished are kept.

    Args:
        events: the EVENTS folder.
        out: gets `text.arrow`, and `masked.json`: by section, the summaries that it was cut from.
        prepare: memory and workers.
        mask_sections: headers of the sections whose bodies are cut from discharge summaries.
    """
    files = sorted((events / "data").glob("**/*.parquet"))
    parts = out / ".parts"
    parts.mkdir(exist_ok=True)
    size = sum(file.stat().st_size for file in files)
    job = _Shard(prepare, tuple(mask_sections), min(prepare.processes(size), len(files)))
    jobs = [(file, parts / f"{i}.arrow") for i, file in enumerate(files)]
    masked = Counter(dict.fromkeys(mask_sections, 0))
    for counts in map_shards(job, jobs, prepare, size, "notes"):
        masked.update(counts)
    _merge([part for _, part in jobs], out / "text.arrow")
    write_json(out / "masked.json", dict(masked))
    shutil.rmtree(parts)


@dataclass(frozen=True)
class _Shard:
    """Sorts the notes of one shard; a class so that joblib can send it to a process."""

    prepare: Prepare
    mask_sections: tuple[str, ...]
    share: int

    def __call__(self, job: tuple[Path, Path]) -> dict[str, int]:
        file, part = job
        done = part.with_suffix(".json")
        if done.is_file():
            counts: dict[str, int] = read_json(done)
            return counts
        masked = dict.fromkeys(self.mask_sections, 0)
        with whole(part) as beside, connect(self.prepare, part.parent, self.share) as con:
            con.execute("SET preserve_insertion_order = true")
            reader = con.sql(_NOTES.format(file=file)).to_arrow_reader(_ROWS_A_BATCH)
            with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
                for batch in reader:
                    for start in range(0, batch.num_rows, _ROWS_MERGED):  # what the merge holds of every shard
                        few = batch.slice(start, _ROWS_MERGED)
                        writer.write_batch(_mask_batch(few, masked) if masked else few)
        write_json(done, masked)
        return masked


class _Cursor:
    """Reads a sorted part from its beginning, some rows at a time, holding one small block."""

    def __init__(self, stack: ExitStack, part: Path) -> None:
        self._reader = stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(part)))))
        self._block: pa.Table = self._reader.schema.empty_table()

    def take(self, n_rows: int) -> list[pa.Table]:
        """The next rows."""
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
    """One file in the order of subjects; a subject's notes stand in one part, in order."""
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
            # the pieces stand part after part; each row of the block takes the next of its own part
            place = np.empty(len(block), np.int64)
            place[np.argsort(block, kind="stable")] = np.arange(len(block))
            rows = pa.concat_tables(pieces).combine_chunks().take(place).combine_chunks()
            writer.write_table(rows, max_chunksize=_ROWS_A_BATCH)


def _subjects(part: Path) -> np.ndarray:
    """subject_id of every row; the texts are read past, a block at a time."""
    with pa.OSFile(str(part)) as source, pa.ipc.open_stream(source) as reader:
        found = [batch.column("subject_id").to_numpy() for batch in reader]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _mask_batch(batch: pa.RecordBatch, masked: dict[str, int]) -> pa.RecordBatch:
    """Cut the sections from the batch's discharge summaries and count them in `masked`."""
    texts = batch["text"].to_pylist()
    for row, code in enumerate(batch["code"].to_pylist()):
        if code.startswith(_SUMMARY):
            for section in masked:
                texts[row], found = mask_section(texts[row], section)
                masked[section] += found
    field = batch.schema.field("text")
    return batch.set_column(batch.schema.get_field_index("text"), field, pa.array(texts, field.type))


def mask_section(text: str, section: str) -> tuple[str, bool]:
    r"""A discharge summary without the body of a section, and whether it has that section.

    The body ends before the next line that is a header and nothing else, or with the text. The header itself is kept.

    Args:
        text: the summary.
        section: its header, in any case, without the colon.

    >>> mask_section("Discharge Disposition:\nHospice\n\nDischarge Diagnosis:\nCHF", "discharge disposition")
    ('Discharge Disposition:\nDischarge Diagnosis:\nCHF', True)
    """
    name = r"[ \t]+".join(re.escape(word) for word in section.split())
    cut, n = re.subn(rf"^([ \t]*(?i:{name})[ \t]*:).*?(?={_HEADER}|\Z)", r"\1\n", text, flags=re.MULTILINE | re.DOTALL)
    return cut, n > 0


def tokenize(notes: Notes, tokenizer: PreTrainedTokenizerFast, out: Path, prepare: Prepare) -> None:
    """Write the token ids of every note, whole and without special tokens, into `out`.

    Args:
        notes: the texts.
        tokenizer: a fast one.
        out: gets `tokens.arrow`. Pieces that a killed process finished are kept.
        prepare: workers.
    """
    parts = out / ".parts"
    parts.mkdir(exist_ok=True)
    [source] = {file["filename"] for file in notes.text.cache_files}
    size = Path(source).stat().st_size
    alone = prepare.engine == "local" and min(prepare.processes(size), -(-len(notes) // _NOTES_A_PIECE)) == 1
    job = _Tokenize(Path(source), parts, tokenizer.backend_tokenizer.to_str(), alone)
    pieces = map_shards(job, range(0, len(notes), _NOTES_A_PIECE), prepare, size, "tokenize")
    with pa.OSFile(str(out / "tokens.arrow"), "wb") as sink, pa.ipc.new_stream(sink, _TOKENS) as writer:
        for piece in pieces:
            with pa.OSFile(str(piece)) as file, pa.ipc.open_stream(file) as reader:
                for batch in reader:
                    writer.write_batch(batch)
    shutil.rmtree(parts)


@dataclass(frozen=True)
class _Tokenize:
    """Tokenises a run of notes; a class so that joblib can send it to a process."""

    source: Path
    parts: Path
    tokenizer: str
    alone: bool

    def __call__(self, first: int) -> Path:
        from tokenizers import Tokenizer

        piece = self.parts / f"{first}.arrow"
        if piece.is_file():
            return piece
        if not self.alone:  # the cores are taken by the processes beside this one
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        # Chunking comes later. Some pretrained tokenizers are saved with a truncation, which would silently drop the
        # end of a note.
        backend = Tokenizer.from_str(self.tokenizer)
        backend.no_truncation()
        backend.no_padding()
        with (
            whole(piece) as beside,
            pa.OSFile(str(beside), "wb") as sink,
            pa.ipc.new_stream(sink, _TOKENS) as writer,
        ):
            for texts in _texts(self.source, first, first + _NOTES_A_PIECE):
                ids = [item.ids for item in backend.encode_batch_fast(texts, add_special_tokens=False)]
                writer.write_batch(pa.record_batch([pa.array(ids, _TOKENS.field("tokens").type)], schema=_TOKENS))
        return piece


def _texts(source: Path, first: int, stop: int) -> Iterator[list[str]]:
    """The texts of notes [first, stop), in batches."""
    from datasets import Dataset

    text = Dataset.from_file(str(source))
    for start in range(first, min(stop, len(text)), _ROWS_A_BATCH):
        yield list(text.select(range(start, min(start + _ROWS_A_BATCH, stop, len(text))))["text"])
