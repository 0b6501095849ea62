"""Reads facts about a patient's stays that were known at a prediction time, for clinical scores.

The facts are read from EVENTS, since the series store has neither diagnoses nor the type of a stay. `window.bounds`
selects them, like every other input.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pandas as pd

from ehrdl.clinical.charlson import mask_sql
from ehrdl.clinical.codes import folded_sql
from ehrdl.data.series.store import Store
from ehrdl.data.window import bounds
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files

#: Codes that are recognised by the part before `//`; the others have rules of their own.
_KINDS = ("ADMISSION", "DISCHARGE", "ADMISSION_TYPE", "SERVICE_IN", "ED_IN")
_SAMPLES_A_BLOCK = 20_000


def read_history(events: Path) -> pd.DataFrame:
    """Read the facts about all stays from an EVENTS folder: admissions, discharges, services, diagnoses and procedures.

    Returns:
        One row per fact, with the columns subject_id, encounter_id (-1 = none), kind (such as `ADMISSION`), text (the
        code after `//`), comorbidity, time [µs] and available [µs]. All diagnoses of a stay with the same times are one
        row, and diagnoses without a comorbidity have none. The comorbidity of such a row has the bits of
        `charlson.mask_sql` for all its diagnoses.
    """
    kinds = ", ".join(f"'{kind}'" for kind in _KINDS)
    where = "subject_id, coalesce(encounter_id, -1) AS encounter_id"
    when = "epoch_us(time) AS time, epoch_us(available_time) AS available"
    sql = f"""
        WITH fact AS (SELECT *, split_part(code, '//', 1) AS head FROM {scan(shard_files(events))}
            WHERE time IS NOT NULL)
        SELECT {where}, head AS kind, {folded_sql("substr(code, length(head) + 3)")} AS text, 0 AS comorbidity, {when}
        FROM fact WHERE head IN ({kinds}) OR code LIKE 'PROCEDURE//ICD%'
        UNION ALL
        SELECT {where}, 'ED_IN', '', 0, {when} FROM fact
        WHERE head = 'TRANSFER_IN' AND encounter_id IS NULL AND code ILIKE '%//Emergency Department%'
        UNION ALL
        SELECT {where}, 'DIAGNOSIS', '', bit_or({mask_sql()}) AS comorbidity, {when}
        FROM fact WHERE head = 'DIAGNOSIS' GROUP BY ALL HAVING comorbidity > 0
        ORDER BY ALL"""
    with duckdb.connect() as con:
        history = con.execute(sql).df()
    return history.astype({"kind": "category"})


def seen(
    history: pd.DataFrame, samples: pd.DataFrame, by: Literal["available", "time"] = "available"
) -> Iterator[tuple[slice, pd.DataFrame]]:
    """Yield the facts about stays that each sample sees, one block of samples at a time.

    Args:
        history: the facts from `read_history`.
        samples: the SAMPLES table, sorted by subject_id and prediction_time.
        by: the time that decides whether a sample sees a fact. `available` is the usual rule: the fact was available by
            the prediction time. `time` also shows facts that had happened but were not yet available, such as the codes
            of the current stay. Only the retrospective version of a score uses `time`. No hospital could have computed
            that version at the prediction time.

    Yields:
        For each block, the slice of its rows in `samples`, and a frame of facts. The frame has one row for each pair of
        a fact and a sample that sees it. Its column `row` is the sample's row in `samples`.
    """
    ordered = history.sort_values(["subject_id", by], kind="stable", ignore_index=True)
    subjects, first = np.unique(ordered.subject_id.to_numpy(), return_index=True)
    offsets = np.r_[first, len(ordered)]
    t = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
    start, stop = bounds(ordered[by].to_numpy(), offsets, subjects, samples.subject_id.to_numpy(), t)
    for begin in range(0, len(samples), _SAMPLES_A_BLOCK):
        block = slice(begin, min(begin + _SAMPLES_A_BLOCK, len(samples)))
        n = (stop - start)[block]
        place = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(start[block], n)
        yield block, ordered.iloc[place].assign(row=np.repeat(np.arange(block.start, block.stop), n))


def last_since(
    store: Store, channel: str, subject: np.ndarray, since: np.ndarray, prediction_time: np.ndarray
) -> np.ndarray:
    """Return for each sample the last visible value of a channel that was measured since a given time; NaN = none.

    Args:
        store: the series store.
        channel: the channel's name.
        subject: the subject_id of each sample, (n,) int64, sorted.
        since: the earliest time of measurement for each sample, inclusive, (n,) int64 [µs].
        prediction_time: the prediction time of each sample, (n,) int64 [µs].
    """
    last = np.full(len(subject), np.nan)
    if channel not in [known.name for known in store.channels]:
        return last
    chosen = np.flatnonzero(store.channel == store.channel_id(channel))
    offsets = np.searchsorted(chosen, store.offsets)
    available, time, value = (np.asarray(array[chosen]) for array in (store.available, store.time, store.value))
    # Facts that were visible before `since` were also measured before it, so the search begins after them.
    _, start = bounds(available, offsets, store.subjects, subject, since - 1)
    _, stop = bounds(available, offsets, store.subjects, subject, prediction_time)
    for i in np.flatnonzero(stop > start):
        times = time[start[i] : stop[i]]
        latest = len(times) - 1 - int(times[::-1].argmax())  # of several at the same time, the last one in order
        if times[latest] >= since[i]:
            last[i] = value[start[i] + latest]
    return last
