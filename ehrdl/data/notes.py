"""Notes as memory-mapped Arrow tables (`datasets`), ordered by (subject, available): their text, and their tokens.

The text table is free of tasks and tokenizers; a token table is keyed by its tokenizer. Reading a note is a zero-copy
slice of the Arrow buffers. Which notes a sample may see is decided by `window.bounds` over `available`, as for every
fact.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ehrdl.engine import Prepare, connect, progress, write_json

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

#: Raised whenever `collect` or `tokenize` would write other bytes for the same input.
VERSION = 3

_ROWS_A_BATCH = 1000
_NOTES = """
    SELECT subject_id, epoch_us(available_time) AS available, epoch_us(time) AS time, code, text_value AS text
    FROM read_parquet('{events}/data/**/*.parquet')
    WHERE code LIKE 'NOTE//%' AND text_value IS NOT NULL AND available_time IS NOT NULL
    ORDER BY subject_id, available, time, code, text
"""
_SUMMARY = "NOTE//discharge"
# A line of its own, such as `Followup Instructions:` or `History of Present Illness:`. A line that goes on after the
# colon (`Mental Status: Clear`) stays in the section that it stands in: too much is safe, too little is a leak.
_HEADER = r"^[ \t]*[A-Z][a-z]+(?:[ \t]+(?:[A-Z][\w/&'-]*|of|on|or|and|the|to|for|in|with|at))*[ \t]*:[ \t]*$"


@dataclass(frozen=True)
class Notes:
    """Opened notes.

    Attributes:
        available, time: (n_notes,) int64 [µs], ordered within each subject.
        subjects, offsets: subject i owns notes [offsets[i], offsets[i + 1]).
        text: the `datasets` table with the columns subject_id, available, time, code, text.
        tokens: token ids of each note, without special tokens; None until tokenised.
    """

    available: np.ndarray
    time: np.ndarray
    subjects: np.ndarray
    offsets: np.ndarray
    text: Dataset
    tokens: TokenLists | None = None

    def __len__(self) -> int:
        return len(self.available)

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The bodies of notes, by row."""
        return list(self.text.select(np.asarray(rows, dtype=np.int64))["text"]) if len(rows) else []


class TokenLists:
    """Lists of token ids by row, sliced from memory-mapped Arrow buffers without a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._values = [chunk.values.to_numpy(zero_copy_only=True) for chunk in column.chunks]
        self._starts = np.cumsum([0] + [len(chunk) for chunk in column.chunks])
        self.lengths = np.concatenate([np.diff(o) for o in self._offsets]) if self._offsets else np.zeros(0, np.int64)

    def __getitem__(self, row: int) -> np.ndarray:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        offsets, at = self._offsets[part], row - self._starts[part]
        tokens: np.ndarray = self._values[part][offsets[at] : offsets[at + 1]]
        return tokens


def collect(events: Path, out: Path, prepare: Prepare, mask_sections: Sequence[str] = ()) -> None:
    """Write all notes of an EVENTS folder into `out`, ordered by subject and availability.

    Args:
        events: the EVENTS folder.
        out: gets `text.arrow`, and `masked.json`: by section, the summaries that it was cut from.
        prepare: memory.
        mask_sections: headers of the sections whose bodies are cut from discharge summaries.
    """
    masked = dict.fromkeys(mask_sections, 0)
    with connect(prepare, out) as con:
        con.execute("SET preserve_insertion_order = true")
        reader = con.sql(_NOTES.format(events=events)).to_arrow_reader(_ROWS_A_BATCH)
        with pa.OSFile(str(out / "text.arrow"), "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(_mask_batch(batch, masked) if masked else batch)
    write_json(out / "masked.json", masked)


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


def open_notes(folder: Path, tokens: Path | None = None) -> Notes:
    """Map collected notes, and their tokens where given, into memory."""
    from datasets import Dataset

    text = Dataset.from_file(str(folder / "text.arrow"))
    columns = {name: text.data.column(name).to_numpy() for name in ("subject_id", "available", "time")}
    subjects, first = np.unique(columns["subject_id"], return_index=True)
    offsets = np.r_[first, len(text)].astype(np.int64)
    lists = None
    if tokens is not None:
        lists = TokenLists(Dataset.from_file(str(tokens / "tokens.arrow")).data.column("tokens"))
    return Notes(columns["available"], columns["time"], subjects, offsets, text, lists)


def bodies(notes: Notes, keep: np.ndarray | None = None) -> Iterator[list[str]]:
    """The texts in batches; only the rows where `keep` (n_notes,) is true."""
    for start in range(0, len(notes), _ROWS_A_BATCH):
        rows = np.arange(start, min(start + _ROWS_A_BATCH, len(notes)))
        yield notes.texts(rows if keep is None else rows[keep[rows]])


def tokenize(notes: Notes, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the token ids of every note, whole and without special tokens, into `out`."""
    schema = pa.schema([("tokens", pa.list_(pa.int32()))])
    n_batches = -(-len(notes) // _ROWS_A_BATCH)
    with (
        progress() as bar,
        pa.OSFile(str(out / "tokens.arrow"), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for texts in bar.track(bodies(notes), total=n_batches, description="tokenize"):
            tokens = pa.array(_encode(tokenizer, texts), pa.list_(pa.int32()))
            writer.write_batch(pa.record_batch([tokens], schema=schema))


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    # The backend encodes in parallel and never warns about long texts: chunking comes later. Some pretrained tokenizers
    # are saved with a truncation, which would silently drop the end of a note.
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    return [item.ids for item in backend.encode_batch(texts, add_special_tokens=False)]
