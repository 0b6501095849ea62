"""Exports a MEDS dataset for other tools: the events, the labels of a task, and the split of the patients.

MEDS tools see a fact at time t if `time <= t`. The argument `time` of `export_events` decides which time they get. With
`happened`, the rows of EVENTS are exported unchanged. A tool then sees facts before the hospital's systems could show
them. With `available`, `time` is replaced by available_time, and a tool sees the facts that `window.bounds` shows.
Facts that no model of ehrdl reads are then left out: deaths, year groups and the task's hidden codes. The parts of
notes that `mask_sections` and `keep_sections` of `data.notes` remove are left out too. Births keep their time, so that
tools can compute an age.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.data.config import DataConfig, NoteOptions
from ehrdl.data.notes.build import cut_note
from ehrdl.data.notes.store import NOTE
from ehrdl.data.prepare import find_samples, read_events
from ehrdl.data.temporal_split import describe_split, source_splits, split_samples
from ehrdl.engine.database import connect
from ehrdl.engine.files import building, free_folder, read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.engine.shards import map_shards
from ehrdl.errors import SchemaError
from ehrdl.events.listing import shard_files
from ehrdl.events.writer import subject_ids
from ehrdl.schema import BIRTH, EVENTS, NEVER_INPUT, REGRESSION, SAMPLES, SPLITS, OutputSpec, check
from ehrdl.splits.subjects import Split, assign

Times = Literal["happened", "available"]

_ROWS_A_GROUP = 122_880
_HAPPENED = "happened_time"
_NAMES = ("subject_id", "time", "code", "numeric_value", "text_value", _HAPPENED, "encounter_id")
_TYPES = {column.name: column.type for column in EVENTS.columns}
_SCHEMA = pa.schema([(name, _TYPES["time" if name == _HAPPENED else name]) for name in _NAMES])
#: The column order of EVENTS, with its two times swapped.
_ORDER = ("subject_id", "time", _HAPPENED, "code", "encounter_id", "numeric_value", "text_value")
_ROWS = f"""
    SELECT {", ".join(_NAMES)} FROM (
        SELECT * REPLACE (CASE WHEN code = '{BIRTH}' THEN time ELSE available_time END AS time), time AS {_HAPPENED}
        FROM {{rows}} WHERE NOT ({{hidden}}))
    ORDER BY {", ".join(f"{name} ASC NULLS FIRST" for name in _ORDER)}
"""
_SAID = {"happened": "happened", "available": "could be seen"}
_LEFT_OUT = "SELECT split_part(code, '//', 1) AS kind, count(*) FROM {rows} WHERE {hidden} GROUP BY kind"
_LATE_BIRTHS = f"SELECT count(*) FROM {{rows}} WHERE code = '{BIRTH}' AND available_time > time"


def export_events(data: DataConfig, task: Any, out: Path, time: Times = "happened") -> dict[str, Any]:
    """Write the events of a source as a MEDS dataset, with the labels of a task and the split of the config.

    Args:
        data: the configuration of the source, the split, and the sections of notes to cut or to keep.
        task: the prediction task.
        out: the output folder, which must be empty or missing. It is written completely or not at all.
        time: `happened` keeps the times of EVENTS. `available` replaces the time of each fact by its available_time.

    Returns:
        The content of the file `export.json`: counts of what was written and what was left out.

    Raises:
        EhrdlError: `out` is not empty, or the source or the task refuses the data.
    """
    out = free_folder(out)
    data.check()
    events = read_events(data)
    result = find_samples(events, task)
    samples, split = split_samples(result.samples, data.split, events, data.source.subject_of)
    hidden = (*NEVER_INPUT, *result.hidden_codes) if time == "available" else None
    with building(out) as part:
        (part / "metadata").mkdir()
        facts: dict[str, Any] = {"time": time}
        facts |= _write_data(events, part, data.prepare, hidden, data.notes)
        _write_dataset(events, part, time)
        facts["subjects"] = _write_splits(samples, data.split, events, part)
        facts["split"] = split
        facts["labels"] = _write_labels(samples, result.outputs, part)
        write_json(part / "export.json", facts)
    _say(facts, out)
    return facts


def _write_data(
    events: Path, out: Path, prepare: Prepare, hidden: tuple[str, ...] | None, notes: NoteOptions
) -> dict[str, Any]:
    """Write the shards, and the metadata of the codes that remain in them.

    Args:
        events: the EVENTS folder.
        out: the folder that gets `data/` and `metadata/codes.parquet`.
        prepare: limits on memory and workers.
        hidden: prefixes of the codes to leave out, for time := available_time. None = the rows of EVENTS are kept as
            they are.
        notes: the sections of notes to cut or to keep, for time := available_time.
    """
    files = shard_files(events)
    size = sum(file.stat().st_size for file in files)
    jobs = [(file, out / file.relative_to(events)) for file in files]
    for folder in {target.parent for _, target in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    codes = pq.read_table(events / meds.code_metadata_filepath)
    if hidden is None:
        map_shards(_copy, jobs, prepare, size, "export")
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        facts: dict[str, Any] = {"rows": rows}
    else:
        job = _Shard(prepare, _any_of(hidden), notes, min(prepare.processes(size), len(files)))
        shards = map_shards(job, jobs, prepare, size, "export")
        left = pa.array(sorted(set().union(*(shard.codes for shard in shards))), pa.string())
        codes = codes.filter(pc.is_in(codes["code"], left))
        facts = {
            "rows": sum(shard.rows for shard in shards),
            "left_out": dict(sorted(sum((shard.left_out for shard in shards), Counter()).items())),
            "masked": {name: sum(shard.masked[name] for shard in shards) for name in sorted(set(notes.mask_sections))},
            "births_seen_early": sum(shard.late_births for shard in shards),
        }
    pq.write_table(meds.CodeMetadataSchema.align(codes), out / meds.code_metadata_filepath)
    return facts


def _copy(job: tuple[Path, Path]) -> None:
    shutil.copyfile(*job)


def _any_of(prefixes: tuple[str, ...]) -> str:
    """Return SQL that tells whether a code begins with one of the prefixes."""
    quoted = [prefix.replace("'", "''") for prefix in prefixes]
    return " OR ".join(f"starts_with(code, '{prefix}')" for prefix in quoted)


@dataclass(frozen=True)
class _Written:
    """The contents of a written shard, and counts of what was left out of it."""

    rows: int
    codes: set[str]
    left_out: Counter[str]
    masked: Counter[str]
    late_births: int


@dataclass(frozen=True)
class _Shard:
    """Writes one shard with the times when facts became available; it is a class so that it can be pickled."""

    prepare: Prepare
    hidden: str
    notes: NoteOptions
    share: int

    def __call__(self, job: tuple[Path, Path]) -> _Written:
        file, target = job
        rows_of_file = scan(file)
        rows = 0
        codes: set[str] = set()
        masked: Counter[str] = Counter()
        with connect(self.prepare, target.parent, self.share) as con:
            con.execute("SET preserve_insertion_order = true; SET threads = 1")
            left_out = Counter(dict(con.execute(_LEFT_OUT.format(rows=rows_of_file, hidden=self.hidden)).fetchall()))
            [(late_births,)] = con.execute(_LATE_BIRTHS.format(rows=rows_of_file)).fetchall()
            reader = con.sql(_ROWS.format(rows=rows_of_file, hidden=self.hidden)).to_arrow_reader(_ROWS_A_GROUP)
            with pq.ParquetWriter(target, _SCHEMA, compression="zstd") as writer:
                for batch in reader:
                    table = _cut(pa.Table.from_batches([batch]).cast(_SCHEMA), self.notes, masked, left_out)
                    meds.DataSchema.validate(table)
                    writer.write_table(table)
                    rows += table.num_rows
                    codes.update(pc.unique(table["code"]).to_pylist())
        return _Written(rows, codes, left_out, masked, late_births)


def _cut(table: pa.Table, notes: NoteOptions, masked: Counter[str], left_out: Counter[str]) -> pa.Table:
    """Cut notes as for models, and count the cuts in `masked`; drop empty notes, and count them in `left_out`."""
    mask, keep = sorted(set(notes.mask_sections)), notes.keep_sections
    if not mask and not keep:
        return table
    is_note = pc.and_(pc.starts_with(table["code"], NOTE), pc.is_valid(table["text_value"]))
    texts, is_left = table["text_value"].to_pylist(), np.ones(table.num_rows, bool)
    codes = table["code"].to_pylist()
    for row in np.flatnonzero(is_note.to_numpy()):
        texts[row], found, _ = cut_note(codes[row], texts[row], mask, keep)
        masked.update(found)
        is_left[row] = texts[row] is not None
    if not is_left.all():
        left_out[NOTE.rstrip("/")] += int((~is_left).sum())
    place = table.column_names.index("text_value")
    cut = table.set_column(place, _SCHEMA.field("text_value"), pa.array(texts, _TYPES["text_value"]))
    return cut.filter(pa.array(is_left))


def _write_dataset(events: Path, out: Path, time: Times) -> None:
    """Write the dataset's description, copied from EVENTS, with the names of the columns that are not in MEDS."""
    dataset = read_json(events / meds.dataset_metadata_filepath)
    if time == "available":
        dataset["dataset_name"] += ", time := available_time"
    extension = _HAPPENED if time == "available" else "available_time"
    write_json(out / meds.dataset_metadata_filepath, dataset | {"other_extension_columns": [extension]})


def _write_splits(samples: pd.DataFrame, split: Split, events: Path, out: Path) -> dict[str, int]:
    """Write the split of each subject, and return the number of subjects per split.

    A temporal split is defined on samples. A subject has the split of its samples, and no split if it has no sample.
    """
    subjects = subject_ids(events)
    if split.by_subject:
        frame = pd.DataFrame({"subject_id": subjects, "split": assign(subjects, split)})
    elif split.method == "source":
        frame = source_splits(events).reindex(subjects).dropna().reset_index()
    else:
        frame = samples.drop_duplicates("subject_id")[["subject_id", "split"]]
    table = pa.Table.from_pandas(frame, pa.schema({"subject_id": pa.int64(), "split": pa.string()}), False)
    pq.write_table(meds.SubjectSplitSchema.align(table), out / meds.subject_splits_filepath)
    counts = {name: int((frame["split"] == name).sum()) for name in SPLITS}
    return counts | {"without_split": len(subjects) - len(frame)}


def _write_labels(samples: pd.DataFrame, outputs: list[OutputSpec], out: Path) -> dict[str, dict[str, int]]:
    """Write a folder of MEDS labels for each output; unknown labels are left out and counted."""
    table = check(samples, SAMPLES)
    counts = {}
    for output in outputs:
        label = table[f"label_{output.name}"]
        columns = {name: table[name] for name in ("subject_id", "prediction_time")}
        numeric = output.kind == REGRESSION
        value = {"float_value": label} if numeric else {"boolean_value": pc.equal(label, 1.0)}
        labels = _distinct(pa.table(columns | value).filter(pc.is_valid(label)), output.name)
        folder = out / "labels" / output.name
        folder.mkdir(parents=True)
        pq.write_table(meds.LabelSchema.align(labels), folder / "0.parquet")
        counts[output.name] = {"n": labels.num_rows, "unknown": label.null_count}
        if not numeric:
            counts[output.name]["positive"] = int(pc.sum(labels["boolean_value"]).as_py() or 0)
    return counts


def _distinct(labels: pa.Table, output: str) -> pa.Table:
    """Return one row per subject and time, since MEDS labels have no encounter."""
    frame: pd.DataFrame = labels.to_pandas().drop_duplicates()
    twice = frame[frame.duplicated(["subject_id", "prediction_time"])]
    if len(twice):
        first = twice.iloc[0]
        raise SchemaError(
            f"SAMPLES: column label_{output}: subject {first.subject_id} has two labels at {first.prediction_time}, "
            "of two encounters; a MEDS label file cannot tell them apart"
        )
    return pa.Table.from_pandas(frame, labels.schema, preserve_index=False)


def _say(facts: dict[str, Any], out: Path) -> None:
    if line := describe_split(facts["split"]):
        say(line)
    if facts["time"] == "happened":
        say("note: MEDS tools cut by time, and see these facts before they could be seen; see --time available")
    elif facts["left_out"]:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in facts["left_out"].items())
        say(f"left out, since no model reads them: {kinds}")
    for section, n in facts.get("masked", {}).items():
        say(f"notes: section {section!r} cut from {n:,} discharge summaries and radiology reports")
    for output, n in facts["labels"].items():
        positive = f", {n['positive']:,} positive" if "positive" in n else ""
        say(f"labels {output}: {n['n']:,}{positive}; {n['unknown']:,} unknown are left out")
    named = ", ".join(f"{name} {n:,}" for name, n in facts["subjects"].items())
    say(f"subjects: {named}")
    say(f"{facts['rows']:,} events, by the time when they {_SAID[facts['time']]}: {out}")
