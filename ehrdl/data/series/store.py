"""The series store: all subjects' facts as flat memory-mapped arrays, independent of tasks, splits and scalers.

`available` int64 [µs], `time` int64 [µs], `channel` uint16 and `value` float32 (canonical unit) have one entry per
fact. Facts are ordered by (subject, available, time, channel). The subject `subjects[i]` has the facts [offsets[i],
offsets[i + 1]). A fact without a number has a channel of kind `event` and the value 1.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ehrdl.clinical.concepts import Channel, Concepts
from ehrdl.engine.database import connect
from ehrdl.engine.files import read_json, whole, write_json
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import map_shards
from ehrdl.errors import SchemaError
from ehrdl.events.listing import shard_files
from ehrdl.schema import NEVER_INPUT

#: Increased whenever `build` would write other bytes for the same EVENTS.
VERSION = 6

_ARRAYS = {"available": np.int64, "time": np.int64, "channel": np.uint16, "value": np.float32}


@dataclass(frozen=True)
class Store:
    """An opened series store. Facts are ordered by (subject, available, time, channel).

    Attributes:
        available: (n_facts,) int64 [µs], the time when each fact became available.
        time: (n_facts,) int64 [µs], the time when each fact happened.
        channel: (n_facts,) uint16, the channel of each fact, an index into `channels`.
        value: (n_facts,) float32, in the canonical unit of the channel; 1 for an event.
        subjects: (n_subjects,) int64, subject_id, sorted.
        offsets: (n_subjects + 1,) int64; subject i has the facts [offsets[i], offsets[i + 1]).
        channels: the description of each channel.
        counts: for each channel, the number of facts that were kept, of facts out of the plausible range, and of
            patients. For each code in an unknown unit, the number of facts and of patients.
    """

    available: np.ndarray
    time: np.ndarray
    channel: np.ndarray
    value: np.ndarray
    subjects: np.ndarray
    offsets: np.ndarray
    channels: tuple[Channel, ...]
    counts: dict[str, Any]

    def channel_id(self, name: str) -> int:
        """Return the index in `channels` of the channel with the given name."""
        return [channel.name for channel in self.channels].index(name)

    def unknown_units(self, min_patients: int) -> dict[str, int]:
        """Count the facts in unknown units, by code. A unit that fewer than `min_patients` patients have is not named.

        Units are typed by people, so a rare unit may contain a patient's name.
        """
        found: Counter[str] = Counter()
        for code, counts in self.counts.items():
            if counts["unknown_unit"]:
                named = code if counts["patients"] >= min_patients else "//".join(code.split("//")[:2])
                found[named] += counts["unknown_unit"]
        return dict(found)


def build(events: Path, concepts: Concepts, out: Path, prepare: Prepare) -> None:
    """Write the series store of an EVENTS folder into the folder `out`.

    Facts are extracted shard by shard, and then ordered by subject. Shards that a killed process has extracted are not
    extracted again.
    """
    files = shard_files(events)
    parts = out / ".parts"
    parts.mkdir(parents=True, exist_ok=True)
    jobs = [(file, parts / f"{i}.npz") for i, file in enumerate(files)]
    size = sum(file.stat().st_size for file in files)
    share = min(prepare.processes(size), len(files))
    map_shards(_Shard(concepts, prepare, share), jobs, prepare, size, "series store")
    _lay_out([part for _, part in jobs], out)
    total: dict[str, Counter[str]] = {}
    for _, part in jobs:
        for name, counts in read_json(_counts(part)).items():
            total.setdefault(name, Counter()).update(counts)
    write_json(out / "counts.json", dict(sorted(total.items())))
    shutil.rmtree(parts)


def open_store(folder: Path, concepts: Concepts) -> Store:
    """Open a series store that `build` wrote with the same `concepts`. Its arrays are memory-mapped."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*_ARRAYS, "subjects", "offsets")}
    return Store(**arrays, channels=concepts.channels, counts=read_json(folder / "counts.json"))


@dataclass(frozen=True)
class _Shard:
    """Extracts one shard's facts; it is a class so that joblib can send it to a process."""

    concepts: Concepts
    prepare: Prepare
    share: int

    def __call__(self, job: tuple[Path, Path]) -> None:
        file, part = job
        if part.is_file():
            return
        rows = scan(file)
        with connect(self.prepare, part.parent, self.share) as con:
            codes = [row[0] for row in con.execute(f"SELECT DISTINCT code FROM {rows}").fetchall()]
            con.register("concept", self.concepts.match(codes))
            bases = self.concepts.base_codes()
            con.register("base", pd.DataFrame({"code": bases}))
            _refuse_never_input(self.concepts)
            con.execute(f"CREATE TEMP TABLE fact AS {_FACTS.format(rows=rows)}")
            counts = con.execute(_COUNTS.format(rows=rows)).df().set_index("channel")
            found = con.execute(_KEPT).fetchnumpy()
        arrays: dict[str, Any] = {name: np.ma.getdata(column) for name, column in found.items()}
        write_json(_counts(part), counts.to_dict(orient="index"))
        with whole(part) as beside, beside.open("wb") as target:
            np.savez(target, **arrays)


def _counts(part: Path) -> Path:
    return part.with_suffix(".json")


# canonical value = value * factor + offset; an event is 1; a numeric fact without a number is dropped. The range is
# also compared in float32, so that a value equal to a limit is plausible.
_FACTS = """
    SELECT subject_id, epoch_us(available_time) AS available, epoch_us(time) AS time, channel_id AS channel,
        c.channel AS name,
        CASE WHEN kind = 'event' THEN 1 ELSE CAST(numeric_value * factor + "offset" AS FLOAT) END AS value,
        kind = 'event' OR (value BETWEEN CAST(low AS FLOAT) AND CAST(high AS FLOAT)) AS plausible
    FROM {rows} AS e JOIN concept AS c USING (code)
    WHERE time IS NOT NULL AND (kind = 'event' OR numeric_value IS NOT NULL)
"""
_KEPT = """
    SELECT subject_id, available, time, CAST(channel AS USMALLINT) AS channel, value
    FROM fact WHERE plausible ORDER BY subject_id, available, time, channel, value
"""
_COUNTS = """
    SELECT name AS channel, count(*) FILTER (plausible) AS kept, count(*) FILTER (NOT plausible) AS implausible,
        0::BIGINT AS unknown_unit, count(DISTINCT subject_id) AS patients FROM fact GROUP BY 1
    UNION ALL
    SELECT code, 0, 0, count(*), count(DISTINCT subject_id) FROM {rows} WHERE code NOT IN (SELECT code FROM concept)
        AND split_part(code, '//', 1) || '//' || split_part(code, '//', 2) IN (SELECT code FROM base) GROUP BY 1
"""


def _refuse_never_input(concepts: Concepts) -> None:
    for code in concepts.base_codes():
        if code.split("//")[0] in NEVER_INPUT:
            raise SchemaError(f"concepts: {code} can never be an input; remove its row")


def _lay_out(parts: list[Path], out: Path) -> None:
    """Write each shard's rows at the positions of their subjects, so that the whole is ordered by subject.

    This uses `pwrite`. The pages of mapped memory would count as memory of the process.
    """
    sizes = []
    for part in parts:
        with np.load(part) as arrays:
            subject, count = np.unique(arrays["subject_id"], return_counts=True)
        sizes.append((subject.astype(np.int64), count))
    subjects = np.concatenate([s for s, _ in sizes]) if sizes else np.zeros(0, np.int64)
    counts = np.concatenate([c for _, c in sizes]) if sizes else np.zeros(0, np.int64)
    order = np.argsort(subjects, kind="stable")
    offsets = np.r_[0, np.cumsum(counts[order])].astype(np.int64)
    np.save(out / "subjects.npy", subjects[order])
    np.save(out / "offsets.npy", offsets)
    start = np.empty(len(subjects), np.int64)
    start[order] = offsets[:-1]
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_Flat(out / f"{name}.npy", kind, offsets[-1])) for name, kind in _ARRAYS.items()
        }
        done = 0
        for part, (subject, count) in zip(parts, sizes, strict=True):
            begin = start[done : done + len(subject)]
            done += len(subject)
            with np.load(part) as arrays:
                for name, file in files.items():
                    file.scatter(arrays[name], np.r_[0, np.cumsum(count)], begin)


class _Flat:
    """A flat array in an .npy file that is filled piece by piece."""

    def __init__(self, path: Path, kind: Any, length: int) -> None:
        self.kind = np.dtype(kind)
        self._file = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self.kind), "fortran_order": False, "shape": (int(length),)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._first = self._file.tell()
        self._file.truncate(self._first + int(length) * self.kind.itemsize)

    def scatter(self, rows: np.ndarray, edges: np.ndarray, begin: np.ndarray) -> None:
        """Write each piece rows[edges[i]:edges[i + 1]] into the array, starting at position begin[i]."""
        data = np.ascontiguousarray(rows, self.kind).data.cast("B")
        size, number = self.kind.itemsize, self._file.fileno()
        for low, high, place in zip(edges[:-1].tolist(), edges[1:].tolist(), begin.tolist(), strict=True):
            os.pwrite(number, data[low * size : high * size], self._first + place * size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
