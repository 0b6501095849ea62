"""Static features of a sample: the patient's age and sex at the prediction time, and facts about earlier stays.

Facts about stays come from the series store through `window.bounds`. Birth and sex are static facts of the subject. No
feature is NaN. A missing age or sex is 0, and a further feature marks it as missing. The counts of stays cover all
visible facts, not only those in the series window.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from ehrdl.clinical.codes import folded_sql
from ehrdl.data.series.store import Store
from ehrdl.data.window import bounds
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files
from ehrdl.schema import BIRTH, HOUR

_YEAR = 365.25 * 24 * HOUR
_DAY = 24 * HOUR
_FACTS_A_BLOCK = 1 << 22
STATICS = (
    "age_years",
    "age_missing",
    "sex_female",
    "sex_missing",
    "log_admissions_before",
    "log_admissions_365d",
    "log_admissions_180d",
    "log_days_since_admission",
    "log_days_between_stays",
)


def subject_facts(events: Path) -> pd.DataFrame:
    """Read from an EVENTS folder the birth and sex of each subject.

    Returns:
        A frame indexed by subject_id with the columns birth and birth_available [µs since 1970] and sex; missing if
        unknown. birth_available is the time when the birth became known. If several births are recorded, only the one
        that became known first counts. A later record then cannot change an earlier age.
    """
    sql = f"""SELECT subject_id, min(epoch_us(available_time)) FILTER (code = '{BIRTH}') AS birth_available,
        arg_min(epoch_us(time), (available_time, time)) FILTER (code = '{BIRTH}') AS birth,
        min({folded_sql("substr(code, 9)")}) FILTER (code LIKE 'GENDER//%') AS sex
        FROM {scan(shard_files(events))}
        WHERE code = '{BIRTH}' OR (time IS NULL AND code LIKE 'GENDER//%') GROUP BY subject_id ORDER BY subject_id"""
    with duckdb.connect() as con:
        return con.execute(sql).df().set_index("subject_id")


def static_features(samples: pd.DataFrame, subjects: pd.DataFrame, store: Store) -> np.ndarray:
    """Compute the S features named in `STATICS` for each sample, (n_samples, S) float32.

    Args:
        samples: the SAMPLES table, sorted by subject_id and prediction_time.
        subjects: the births and sexes from `subject_facts`.
        store: the series store. Its channels `admission` and `discharge` give the stays.
    """
    t = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
    subject = samples.subject_id.to_numpy()
    who = subjects.reindex(subject)
    birth, sex = who.birth.to_numpy(dtype=float), who.sex.to_numpy(dtype=object)
    known = who.birth_available.to_numpy(dtype=float) <= t  # NaN compares as false
    age = np.where(known, (t - birth) / _YEAR, np.nan)
    unknown_sex = ~np.isin(sex, ("F", "M"))
    columns = [
        np.nan_to_num(age),
        np.isnan(age),
        sex == "F",
        unknown_sex,
        *_stays(store, subject, t),
    ]
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)


def hours_since_admission(samples: pd.DataFrame, store: Store) -> np.ndarray:
    """Return the hours from the last visible admission to each prediction time, (n_samples,); 0 if there is none.

    Args:
        samples: the SAMPLES table, sorted by subject_id and prediction_time.
        store: the series store. Its channel `admission` gives the stays.
    """
    t = samples.prediction_time.to_numpy().astype("datetime64[us]").astype(np.int64)
    admitted, offsets = _times(store, "admission")
    start, stop = bounds(admitted, offsets, store.subjects, samples.subject_id.to_numpy(), t)
    latest = admitted[np.maximum(stop - 1, 0)] if len(admitted) else np.zeros_like(t)
    return np.where(stop > start, np.maximum(t - latest, 0) / HOUR, 0.0)


def _stays(store: Store, subject: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
    """Return admission counts up to t, days since the last admission, and days between the last two stays, as log1p."""
    admitted, offsets = _times(store, "admission")
    start, stop = bounds(admitted, offsets, store.subjects, subject, t)
    counts = [stop - start]
    for days in (365, 180):
        first, last = bounds(admitted, offsets, store.subjects, subject, t, days * _DAY)
        counts.append(last - first)
    latest = admitted[np.maximum(stop - 1, 0)] if len(admitted) else np.zeros_like(t)
    since = np.where(stop > start, (t - latest) / _DAY, 0.0)
    left, left_offsets = _times(store, "discharge")
    # The stay before this one: its discharge is the last one visible when this stay began.
    first, last = bounds(left, left_offsets, store.subjects, subject, np.where(stop > start, latest, t))
    before = left[np.maximum(last - 1, 0)] if len(left) else np.zeros_like(t)
    gap = np.where(last > first, (np.where(stop > start, latest, t) - before) / _DAY, 3650.0)
    return [*[np.log1p(count) for count in counts], np.log1p(np.maximum(since, 0)), np.log1p(np.clip(gap, 0, 3650))]


def _times(store: Store, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return `available` of one channel's facts and their offsets by subject; the facts are searched in blocks."""
    names = [channel.name for channel in store.channels]
    number = names.index(name) if name in names else -1
    starts = range(0, len(store.channel), _FACTS_A_BLOCK)
    found = [start + np.flatnonzero(store.channel[start : start + _FACTS_A_BLOCK] == number) for start in starts]
    chosen = np.concatenate(found) if found else np.zeros(0, np.int64)
    return np.asarray(store.available[chosen]), np.searchsorted(chosen, store.offsets)
