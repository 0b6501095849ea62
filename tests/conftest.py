"""A small prepared synthetic hospital, and hospitals that a test writes down fact by fact."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrdl.clinical.concepts import Channel
from ehrdl.data.config import DataConfig
from ehrdl.data.notes.store import Notes, TokenLists
from ehrdl.data.prepare import Prepared, find_samples, prepare, read_events
from ehrdl.data.series.store import Store
from ehrdl.engine.options import Prepare
from ehrdl.schema import EVENTS, HOUR, TaskResult
from ehrdl.sources.meds.source import Meds
from ehrdl.sources.synthetic import Synthetic
from ehrdl.tasks.readmission import Readmission


@dataclass(frozen=True)
class SmallHospital:
    """300 synthetic patients, read, labelled and prepared."""

    config: DataConfig
    events: Path
    result: TaskResult
    prepared: Prepared


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> SmallHospital:
    """Prepared once a session; tests must not change it."""
    cache = tmp_path_factory.mktemp("hospital")
    config = DataConfig(Synthetic(n_patients=300, seed=1), prepare=Prepare(cache=str(cache)))
    events = read_events(config)
    result = find_samples(events, Readmission())
    return SmallHospital(config, events, result, prepare(config, events, result))


@pytest.fixture(scope="session")
def prepared(hospital: SmallHospital) -> Prepared:
    return hospital.prepared


CHANNELS = (
    Channel("admission", "event", "encounter", "", np.nan, np.nan),
    Channel("discharge", "event", "encounter", "", np.nan, np.nan),
    Channel("sodium", "numeric", "lab", "mEq/L", 50.0, 225.0),
    Channel("creatinine", "numeric", "lab", "mg/dL", 0.05, 66.0),
    Channel("outcome_drug", "event", "lab", "", np.nan, np.nan),
)


def _offsets(subject: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    subjects, first = np.unique(subject, return_index=True)
    return subjects, np.r_[first, len(subject)].astype(np.int64)


class Build:
    """Makes what `store.build`, `notes_build.collect` and a task would make, in memory. Times are hours."""

    channels = CHANNELS

    @staticmethod
    def store(facts: Iterable[tuple[int, float, float, int, float]], channels: tuple[Channel, ...] = CHANNELS) -> Store:
        """Facts are (subject, time, available, channel, value)."""
        rows = sorted((s, round(a * HOUR), round(t * HOUR), c, v) for s, t, a, c, v in facts)
        subject, available, time, channel, value = zip(*rows, strict=True) if rows else ((),) * 5
        subjects, offsets = _offsets(np.array(subject, np.int64))
        return Store(
            available=np.array(available, np.int64),
            time=np.array(time, np.int64),
            channel=np.array(channel, np.uint16),
            value=np.array(value, np.float32),
            subjects=subjects,
            offsets=offsets,
            channels=channels,
            counts={},
        )

    @staticmethod
    def notes(bodies: Iterable[tuple[int, float, float, str]]) -> Notes:
        """Bodies are (subject, time, available, text); a token is a character's number."""
        rows = sorted((s, round(a * HOUR), round(t * HOUR), text) for s, t, a, text in bodies)
        subject, available, time, text = zip(*rows, strict=True) if rows else ((),) * 4
        subjects, offsets = _offsets(np.array(subject, np.int64))
        tokens = pa.chunked_array([pa.array([[ord(c) for c in body] for body in text], pa.list_(pa.int32()))])
        table = datasets.Dataset(pa.table({"text": pa.array(text, pa.string())}))
        numbers = np.array(available, np.int64), np.array(time, np.int64)
        return Notes(*numbers, subjects, offsets, table, TokenLists(tokens))

    @staticmethod
    def samples(at: Iterable[tuple[int, float]]) -> pd.DataFrame:
        """`at` are (subject, prediction time), sorted."""
        subject, hours = zip(*at, strict=True)
        times = np.array([round(h * HOUR) for h in hours], np.int64).astype("datetime64[us]")
        label = np.arange(len(subject), dtype=np.float32) % 2
        return pd.DataFrame({"subject_id": subject, "prediction_time": times, "label_outcome": label})

    @staticmethod
    def events(root: Path, rows: Iterable[tuple], n_shards: int = 1) -> Path:
        """Write EVENTS shards of (subject, time, code, number, text, available) in the total order, by subject."""
        columns = ["subject_id", "time", "code", "numeric_value", "text_value", "available_time"]
        frame = pd.DataFrame(list(rows), columns=columns)
        for name in ("time", "available_time"):
            hours = pd.to_numeric(frame[name]).astype("Float64") * HOUR
            frame[name] = pd.to_datetime(hours.round().astype("Int64"), unit="us")
        frame["encounter_id"] = pd.array([None] * len(frame), dtype="Int64")
        order = ["subject_id", "time", "available_time", "code"]
        frame = frame.sort_values(order, na_position="first", kind="stable")
        schema = pa.schema([(column.name, column.type) for column in EVENTS.columns])
        (root / "data").mkdir(parents=True)
        for shard in range(n_shards):
            part = frame[frame.subject_id % n_shards == shard][EVENTS.names()]
            pq.write_table(pa.Table.from_pandas(part, schema, preserve_index=False), root / "data" / f"{shard}.parquet")
        return root


@pytest.fixture(scope="session")
def build() -> Build:
    return Build()


_MEDS_TYPES = {column.name: column.type for column in EVENTS.columns} | {"hadm_id": pa.int64()}


@dataclass
class MedsFolder:
    """A MEDS dataset written row by row: (subject, `01-02 06:00` of the year 2150 or None, code, other columns)."""

    root: Path
    cache: Path

    def file(self, *rows: tuple, name: str = "train/0", types: dict | None = None, **columns: pa.Array) -> Path:
        """Write one file; `types` replaces the types of columns, `columns` adds or replaces whole ones."""
        records = [{"subject_id": s, "time": t, "code": c} | (more[0] if more else {}) for s, t, c, *more in rows]
        for record in records:
            for key in record.keys() & {"time", "available_time"}:
                record[key] = record[key] and pd.Timestamp(f"2150-{record[key]}")
        kinds = _MEDS_TYPES | (types or {})
        names = dict.fromkeys(key for record in records for key in record)
        table = {key: pa.array([record.get(key) for record in records], kinds.get(key)) for key in names}
        path = self.root / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table | columns), path)
        return path

    def metadata(self, name: str, **columns: Any) -> None:
        (self.root / "metadata").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), self.root / "metadata" / f"{name}.parquet")

    def splits(self, **subjects: list[int]) -> None:
        ids = [subject for part in subjects.values() for subject in part]
        names = [name for name, part in subjects.items() for _ in part]
        self.metadata("subject_splits", subject_id=pa.array(ids, pa.int64()), split=names)

    def read(self, workers: int = 1, **options: Any) -> pd.DataFrame:
        """The EVENTS of the dataset, as `read_events` makes them."""
        prepare = Prepare(cache=str(self.cache), n_shards=1, workers=workers)
        self.events = read_events(DataConfig(Meds(str(self.root), **options), prepare=prepare))
        self.facts = json.loads((self.events / "source.json").read_text())
        frame = pd.concat([pd.read_parquet(file) for file in sorted((self.events / "data").glob("*.parquet"))])
        return frame.sort_values("subject_id", kind="stable", ignore_index=True)


@pytest.fixture
def meds(tmp_path: Path) -> MedsFolder:
    return MedsFolder(tmp_path / "meds", tmp_path / "cache")


class WandbFile:
    """What the one `.wandb` file under a run folder holds: a LevelDB log of protocol buffers, in blocks of 32 KiB."""

    def __init__(self, folder: Path) -> None:
        from wandb.proto.wandb_internal_pb2 import Record

        [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
        data, place, part = path.read_bytes(), 7, b""
        assert data[:4] == b":W&B"
        self.records = []
        while place + 7 <= len(data):
            left = 32768 - place % 32768
            if left < 7:  # no room for a header: the block's end is empty
                place += left
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            part += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                self.records.append(Record.FromString(part))
                part = b""

    def of(self, kind: str) -> list[Any]:
        """The records of a kind, in order."""
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @staticmethod
    def values(items: Iterable[Any]) -> dict[str, Any]:
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    def config(self) -> dict[str, Any]:
        return self.values(self.of("run")[0].config.update)

    def history(self) -> list[dict[str, Any]]:
        return [self.values(point.item) for point in self.of("history")]

    def summary(self) -> dict[str, Any]:
        return {name: value for part in self.of("summary") for name, value in self.values(part.update).items()}

    def artifacts(self) -> dict[str, tuple[str, list[str]]]:
        """Name and files by type."""
        logged = [request.log_artifact.artifact for request in self.of("request")] + self.of("artifact")
        return {found.type: (found.name, [entry.path for entry in found.manifest.contents]) for found in logged}


@pytest.fixture(scope="session")
def wandb_file() -> type[WandbFile]:
    return WandbFile
