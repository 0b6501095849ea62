"""Splits the samples of a cohort: by subject, by files, by the source's own split, or by the year of the stay.

MIMIC-IV shifts each patient's dates. For one date per patient, it gives a range of three years for the true year. So
the true year of a stay is known only as a range. A stay is for training if its whole range is before the cut year. It
is held out if its whole range is at or after the cut year. All other stays are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from meds.schema import subject_splits_filepath

from ehrdl.clinical.years import approximate_years
from ehrdl.engine.paths import scan
from ehrdl.errors import SchemaError
from ehrdl.events.listing import shard_files
from ehrdl.events.writer import subject_ids
from ehrdl.schema import HELD_OUT, SPLITS, TRAIN, TUNING
from ehrdl.splits.files import describe_split_files, read_split_files, split_by_files
from ehrdl.splits.subjects import Split, assign, uniform

#: The last year of notes in MIMIC-IV-Note 2.2, whichever release of MIMIC-IV is used with it.
NOTES_END = 2019
_BETWEEN = "between"


def split_samples(
    samples: pd.DataFrame, split: Split, events: Path, subject_of: Callable[[str], int] = int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add the split to SAMPLES, and drop samples that belong to no split.

    Args:
        samples: the SAMPLES table without a split.
        split: the rule of the split.
        events: the EVENTS folder, which has the times of the stays.
        subject_of: a function that returns the subject_id of a record, given its name; used only for a split by files.

    Returns:
        The remaining samples with new sample_id, and a dict for the manifest with the number of samples dropped for
        each reason.

    Raises:
        SchemaError: in a temporal split, a patient has no year group, or the admission of a sample's stay is unknown.
            In a split by files, a file lists no subject that has a sample.
        ConfigError: a split file is missing, or lists something that is not a record.
    """
    if split.files is not None:
        listed, facts = split_by_files(samples, read_split_files(split.files, subject_of), subject_ids(events))
        return _numbered(samples.assign(split=listed)[listed.notna()]), facts
    if split.by_subject:
        fold = {"n_folds": split.n_folds, "fold": split.fold} if split.kind == "folds" else {}
        return samples.assign(split=assign(samples.subject_id.to_numpy(), split)), {"kind": split.kind} | fold
    if split.kind == "source":
        return _split_as_source(samples, events)
    years = _years(samples, split, events)
    side = np.select([years.latest < split.cut_year, years.earliest >= split.cut_year], [TRAIN, HELD_OUT], _BETWEEN)
    later = samples.subject_id.isin(samples.subject_id[side == HELD_OUT]).to_numpy()
    tunes = uniform(samples.subject_id.to_numpy(), split.seed) < split.tuning
    named = np.where((side == TRAIN) & tunes, TUNING, side).astype(object)
    keep = (side == HELD_OUT) | ((side == TRAIN) & ~later)
    facts = {
        "kind": split.kind,
        "cut_year": split.cut_year,
        "last_year": split.last_year,
        "dropped_years_reach_over_the_cut": int((side == _BETWEEN).sum()),
        "dropped_before_the_cut_of_held_out_subjects": int(((side == TRAIN) & later).sum()),
    }
    facts["stays_that_may_be_after_the_last_notes"] = int((keep & (years.latest > NOTES_END)).sum())
    return _numbered(samples.assign(split=named)[keep]), facts


def _split_as_source(samples: pd.DataFrame, events: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Split each subject as the source does; subjects in none of the three splits are dropped."""
    split = samples.subject_id.map(source_splits(events))
    keep = split.isin(SPLITS)
    left = _numbered(samples.assign(split=split.astype(object))[keep])
    return left, {"kind": "source", "dropped_in_no_split": int((~keep).sum())}


def source_splits(events: Path) -> pd.Series:
    """Read from an EVENTS folder the split that the source gave to each subject, indexed by subject_id."""
    table: pd.DataFrame = pq.read_table(events / subject_splits_filepath).to_pandas()
    return table.set_index("subject_id")["split"]


def _numbered(samples: pd.DataFrame) -> pd.DataFrame:
    return samples.reset_index(drop=True).assign(sample_id=np.arange(len(samples), dtype=np.int64))


def describe_split(facts: dict[str, Any]) -> str | None:
    """Describe in one line which samples a split dropped; None if there is nothing to report.

    Args:
        facts: the dict for the manifest that `split_samples` returned.
    """
    if facts["kind"] in ("subject", "folds"):
        return None
    if facts["kind"] == "files":
        return describe_split_files(facts)
    if facts["kind"] == "source":
        n = facts["dropped_in_no_split"]
        names = ", ".join(SPLITS)
        return f"the source's split: {n:,} samples dropped of subjects in none of {names}" if n else None
    return (
        f"temporal split at {facts['cut_year']}: {facts['dropped_years_reach_over_the_cut']:,} samples dropped whose "
        f"years reach over the cut, {facts['dropped_before_the_cut_of_held_out_subjects']:,} from before it of "
        "subjects who are held out"
    )


def describe_notes(facts: dict[str, Any]) -> str | None:
    """Return a one-line message if some stays may be from years without notes, and None otherwise.

    Args:
        facts: the dict for the manifest that `split_samples` returned.
    """
    n = facts.get("stays_that_may_be_after_the_last_notes")
    if not n:
        return None
    return (
        f"notes: {n:,} samples may be of stays after {NOTES_END}, where MIMIC-IV-Note 2.2 ends: those have no notes; "
        "leave the note side out, or read group has_note apart"
    )


def _years(samples: pd.DataFrame, split: Split, events: Path) -> pd.DataFrame:
    """Return the earliest and latest year of each sample's stay, from the admission of its encounter_id."""
    query = f"""
        WITH events AS (FROM {scan(shard_files(events))}),
        groups AS (
            SELECT subject_id, max(substr(code, 20)) AS year_group, max(numeric_value) AS anchor_year
            FROM events WHERE starts_with(code, 'ANCHOR_YEAR_GROUP//') GROUP BY subject_id),
        stays AS (
            SELECT subject_id, encounter_id, year(min(time)) AS year
            FROM events WHERE starts_with(code, 'ADMISSION//') AND encounter_id IS NOT NULL
            GROUP BY subject_id, encounter_id)
        SELECT subject_id, encounter_id, year_group, anchor_year, stays.year
        FROM wanted LEFT JOIN groups USING (subject_id) LEFT JOIN stays USING (subject_id, encounter_id)
        ORDER BY row"""
    with duckdb.connect() as con:
        wanted = samples[["subject_id", "encounter_id"]].assign(row=np.arange(len(samples)))
        con.register("wanted", wanted)
        known = con.execute(query).df()
    _refuse_unknown(known, "year", "has no ADMISSION event with its encounter_id")
    years = approximate_years(known.year_group, known.anchor_year, known.year, split.last_year)
    _refuse_unknown(
        known.assign(earliest=years.earliest), "earliest", "has no ANCHOR_YEAR_GROUP event that gives its years"
    )
    return years


def _refuse_unknown(known: pd.DataFrame, name: str, why: str) -> None:
    missing = known[known[name].isna()]
    if len(missing):
        first = missing.iloc[0]
        stay = "none" if pd.isna(first.encounter_id) else int(first.encounter_id)
        raise SchemaError(
            f"data.split.kind: temporal, but subject {int(first.subject_id)} (stay {stay}) {why}, as do "
            f"{len(missing)} of {len(known)} samples; use kind: subject"
        )
