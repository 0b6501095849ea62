"""The metadata of a MEDS dataset: each subject's split, the descriptions of codes, and the dataset's name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.errors import LeakageError, SchemaError
from ehrdl.events.timing import name_some
from ehrdl.schema import SPLITS
from ehrdl.sources.arrow_types import is_bytes, is_text, plain_type
from ehrdl.sources.meds.columns import damaged

#: The file of splits in MEDS before 0.3.
_OLD_SPLITS = "metadata/patient_splits.parquet"


def read_splits(root: Path) -> pa.Table | None:
    """Read the dataset's own split of its subjects into train, tuning and held_out; None if it has no split.

    Raises:
        SchemaError: the file of splits is damaged or has other columns.
        LeakageError: a subject is in two splits.
    """
    file = root / meds.subject_splits_filepath
    table = _read(file, ["subject_id", "split"])
    if table is None:
        return None
    try:
        plain = pa.table({"subject_id": table["subject_id"].cast(pa.int64()), "split": _texts(table["split"])})
        table = meds.SubjectSplitSchema.align(plain.group_by(["subject_id", "split"]).aggregate([]))
    except Exception as error:
        raise SchemaError(f"{file}: {' '.join(str(error).split())}") from None
    table = table.sort_by([("subject_id", "ascending"), ("split", "ascending")])
    subjects = table["subject_id"].to_numpy()
    twice = np.flatnonzero(subjects[1:] == subjects[:-1])
    if len(twice):
        first, second = table["split"][twice[0]], table["split"][twice[0] + 1]
        raise LeakageError(f"{file}: subject {subjects[twice[0]]} stands in two splits, {first} and {second}")
    return table


def unknown_splits(root: Path, splits: pa.Table | None) -> list[str]:
    """Return a warning about subjects in splits other than train, tuning and held_out; empty if there are none.

    Such subjects are never sampled. A dataset with only the file of splits from before MEDS 0.3 also gets a warning,
    because that file is not read.
    """
    if splits is None:
        old = root / _OLD_SPLITS
        return [f"{old}: is not read; MEDS 0.4 has {meds.subject_splits_filepath}"] if old.is_file() else []
    counts = Counter(splits["split"].to_pylist())
    unknown = {f"{name!r}": n for name, n in counts.items() if name not in SPLITS}
    if not unknown:
        return []
    file = root / meds.subject_splits_filepath
    return [
        f"{file}: {sum(unknown.values()):,} subjects stand in splits that are none of {', '.join(SPLITS)}: "
        f"{name_some(unknown)}; data.split.kind source leaves them out, so rename the splits"
    ]


def read_descriptions(root: Path) -> dict[str, str]:
    """Read the description of each code from the dataset's metadata; empty if there is none.

    Raises:
        SchemaError: the file of codes is damaged, has no column of codes, or holds something other than text.
    """
    file = root / meds.code_metadata_filepath
    table = _read(file, ["code"], ["description"])
    if table is None or "description" not in table.column_names:
        return {}
    try:
        codes, texts = (_texts(table[name]).to_pylist() for name in ("code", "description"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"{file}: code and description must be texts ({' '.join(str(error).split())})") from None
    return {code: text for code, text in zip(codes, texts, strict=True) if text}


def dataset_name(root: Path) -> str:
    """Return the dataset's name from its file `dataset.json`, or `MEDS` if there is none."""
    file = root / meds.dataset_metadata_filepath
    if not file.is_file():
        return "MEDS"
    try:
        return str(json.loads(file.read_text(encoding="utf-8-sig")).get("dataset_name") or "MEDS")
    except OSError as error:
        raise SchemaError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, AttributeError) as error:
        raise SchemaError(f"{file}: is no JSON object ({error})") from None


def _texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as plain text, without dictionary encoding or marking as bytes."""
    kind = plain_type(values.type)
    values = values.cast(kind) if pa.types.is_dictionary(values.type) else values
    if not (pa.types.is_null(kind) or is_text(kind) or is_bytes(kind)):
        raise pa.ArrowInvalid(f"found {kind}")
    return values.cast(pa.string())


def _read(file: Path, required: list[str], optional: Sequence[str] = ()) -> pa.Table | None:
    if not file.is_file():
        return None
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            for name in required:
                if names.count(name) != 1:
                    what = "is missing" if name not in names else f"stands {names.count(name)} times"
                    raise SchemaError(f"{file}: column {name} {what} (the file has {', '.join(names)})")
            return opened.read([name for name in (*required, *optional) if name in names])
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from None
