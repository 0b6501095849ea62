"""Writes verbalised records as a table of texts like that of notes, with one row per sample in SAMPLES order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ehrdl.data.record.text import Verbalizer
from ehrdl.engine.messages import progress

#: The code of a record, in the column that holds the codes of notes.
CODE = "NOTE//record"
_SAMPLES_A_BLOCK = 1000
#: The schema with which `notes.build.collect` writes notes, so that the two tables can be joined.
_SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("available", pa.int64()),
        ("time", pa.int64()),
        ("code", pa.string()),
        ("text", pa.string()),
    ]
)


def write(verbalizer: Verbalizer, out: Path) -> None:
    """Write the verbalised records of all samples to `text.arrow` in the folder `out`, one block at a time.

    Args:
        verbalizer: the object that writes the text of each sample. The prediction time of a sample becomes the
            `available` and `time` of its record.
        out: the output folder.
    """
    dataset = verbalizer.dataset
    with (
        pa.OSFile(str(out / "text.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, _SCHEMA) as writer,
        progress() as bar,
    ):
        for start in bar.track(range(0, len(dataset), _SAMPLES_A_BLOCK), description="records"):
            rows = np.arange(start, min(start + _SAMPLES_A_BLOCK, len(dataset)))
            t = dataset.time[rows]
            columns = [dataset.subject[rows], t, t, [CODE] * len(rows), verbalizer(rows)]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
