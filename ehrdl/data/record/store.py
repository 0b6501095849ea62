"""The verbalised record of every sample, written as notes are: a text table with one row a sample, in SAMPLES order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ehrdl.data.record.text import Verbalizer
from ehrdl.engine.messages import progress

#: The code of a record in the text table, as notes have one.
CODE = "NOTE//record"
_SAMPLES_A_BLOCK = 1000
#: As `notes_build.collect` writes notes, so that the two tables can stand in one.
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
    """Write `text.arrow` into `out`; no more than a block of samples is held.

    Args:
        verbalizer: of the samples; `available` and `time` are their prediction times.
        out: a folder.
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
