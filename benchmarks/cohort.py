"""A cohort of random facts and notes on disk, as `store.build` and `notes_build` would leave it; it means nothing.

A subject has one stay of 160 hours with panels of one to nine facts, a few notes, and one sample in its second half, so
that no token is read by two samples. Counts and lengths are log-normal, as those of hospitals are. A fact is available
when it happened, and no sample is empty, so that software which knows no other time sees the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ehrdl.batch import ChannelSpec
from ehrdl.clinical import concepts
from ehrdl.data.notes.store import Notes, open_notes
from ehrdl.data.series.store import Store, open_store
from ehrdl.schema import HOUR

_STAY_HOURS = 160
_SEEN = 3 / 4  # of a stay's facts and notes, by its sample on average
_FACTS_A_PANEL = 5
_VOCABULARY = 30_000
_NOTES_A_BATCH = 1000
_SUBJECTS_A_SHARD = 5_000


@dataclass(frozen=True)
class Cohort:
    """Where the cohort lies, and its samples."""

    folder: Path
    samples: pd.DataFrame

    def store(self) -> Store:
        """Its series, memory-mapped."""
        return open_store(self.folder / "series", concepts.load())

    def notes(self) -> Notes:
        """Its tokenised notes, memory-mapped."""
        return open_notes(self.folder / "notes", self.folder / "notes")


def channel_specs() -> tuple[ChannelSpec, ...]:
    """All channels, unscaled."""
    return tuple(ChannelSpec(c.name, c.kind, c.unit, 0.0, 1.0, c.low, c.high) for c in concepts.load().channels)


def write(folder: Path, n_subjects: int, mean_observations: int, mean_tokens: int) -> Cohort:
    """Write a cohort whose samples see about so many observations and note tokens on average; the same each time."""
    rng = np.random.default_rng(0)
    subject = 10_000_000 + np.arange(n_subjects, dtype=np.int64)
    admitted = np.sort(rng.integers(50_000, 60_000, n_subjects)) * 24 * HOUR  # in days since 1970
    _write_series(folder / "series", subject, admitted, mean_observations / _SEEN, rng)
    _write_notes(folder / "notes", subject, admitted, mean_tokens / _SEEN, rng)
    at = admitted + rng.integers(_STAY_HOURS // 2, _STAY_HOURS + 1, n_subjects) * HOUR
    label = (rng.random(n_subjects) < 0.2).astype(np.float32)
    samples = {"subject_id": subject, "prediction_time": at.astype("datetime64[us]"), "label_outcome": label}
    return Cohort(folder, pd.DataFrame(samples))


def _write_series(
    folder: Path, subject: np.ndarray, admitted: np.ndarray, mean_facts: float, rng: np.random.Generator
) -> None:
    n_panels = _log_normal(mean_facts / _FACTS_A_PANEL, 0.7, len(subject), rng)
    owner, time = _times(admitted, n_panels, rng)
    time[np.cumsum(n_panels) - n_panels] = admitted  # so that every sample sees one
    size = rng.integers(1, 2 * _FACTS_A_PANEL, len(owner))
    time = np.repeat(time, size)
    n_channels = len(concepts.load().channels)
    arrays = {
        "available": time,
        "time": time,
        "channel": (n_channels * rng.random(len(time)) ** 2).astype(np.uint16),  # a few have most of the facts
        "value": rng.normal(100, 20, len(time)).astype(np.float32),
        "subjects": subject,
        "offsets": np.r_[0, np.cumsum(np.bincount(owner, size, len(subject)))].astype(np.int64),
    }
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "counts.json").write_text(json.dumps({}))


def _write_notes(
    folder: Path, subject: np.ndarray, admitted: np.ndarray, mean_tokens: float, rng: np.random.Generator
) -> None:
    n_notes = rng.integers(1, 6, len(subject))
    owner, time = _times(admitted, n_notes, rng)
    length = _log_normal(mean_tokens / n_notes.mean(), 0.6, len(owner), rng)
    ids = pa.array(rng.integers(5, _VOCABULARY, length.sum(), dtype=np.int32))
    lists = pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(length)].astype(np.int32)), ids)
    when: dict[str, Any] = {"subject_id": subject[owner], "available": time, "time": time}
    texts = pa.table(when | {"code": ["NOTE//DS"] * len(owner), "text": [""] * len(owner)})
    folder.mkdir(parents=True)
    for name, table in (("text", texts), ("tokens", pa.table({"tokens": lists}))):
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=_NOTES_A_BATCH)


def _times(admitted: np.ndarray, n: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """So many moments of each subject's stay, ordered: whose, and when [µs]."""
    owner = np.repeat(np.arange(len(admitted)), n)
    time = admitted[owner] + rng.integers(0, _STAY_HOURS * 60, len(owner)) * (HOUR // 60)
    return owner, time[np.lexsort((time, owner))]


def _log_normal(mean: float, sigma: float, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.maximum(1, np.round(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n))).astype(np.int64)


def write_meds(cohort: Cohort, folder: Path) -> None:
    """The same facts and samples as a MEDS 0.4 dataset, sharded by split, all in training, with `labels/`."""
    store = cohort.store()
    codes = pa.array([channel.name for channel in store.channels])
    (folder / "data" / "train").mkdir(parents=True)
    for first in range(0, len(store.subjects), _SUBJECTS_A_SHARD):
        edges = store.offsets[first : first + _SUBJECTS_A_SHARD + 1]
        own = slice(int(edges[0]), int(edges[-1]))
        columns = {
            "subject_id": np.repeat(store.subjects[first : first + _SUBJECTS_A_SHARD], np.diff(edges)),
            "time": pa.array(store.time[own]).cast(pa.timestamp("us")),
            "code": codes.take(pa.array(store.channel[own])),
            "numeric_value": np.asarray(store.value[own]),
        }
        pq.write_table(pa.table(columns), folder / "data" / "train" / f"{first // _SUBJECTS_A_SHARD}.parquet")
    (folder / "metadata").mkdir()
    none = pa.array([None] * len(codes), pa.string())
    parents = pa.array([None] * len(codes), pa.list_(pa.string()))
    described = pa.table({"code": codes, "description": none, "parent_codes": parents})
    pq.write_table(described, folder / "metadata" / "codes.parquet")
    splits = pa.table({"subject_id": store.subjects, "split": ["train"] * len(store.subjects)})
    pq.write_table(splits, folder / "metadata" / "subject_splits.parquet")
    (folder / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": "random", "meds_version": "0.4.1"}))
    (folder / "labels").mkdir()
    labels = cohort.samples.rename(columns={"label_outcome": "boolean_value"}).astype({"boolean_value": bool})
    pq.write_table(pa.Table.from_pandas(labels, preserve_index=False), folder / "labels" / "train.parquet")
