"""The table that classical models read: one row of summary features per sample.

Every value is computed from the facts that the dataset shows to the deep models (same cut, window, channels and largest
number of facts). So all models have the same inputs. The rich table has additional features that describe the course
within the window. Boosted trees read the rich table. The plain table lacks these features.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ehrdl.data.dataset import Items, SampleDataset
from ehrdl.data.features.static import STATICS
from ehrdl.engine.messages import progress

_SAMPLES_A_BLOCK = 2000
STATISTICS = ("last", "mean", "min", "max", "slope_per_day", "count", "hours_since_last")
_OF_EVENTS = ("count", "hours_since_last")
N_QUARTERS = 4
_MEANS, _COUNTS = ([f"{name}_quarter_{q + 1}" for q in range(N_QUARTERS)] for name in ("mean", "count"))
#: The further features of a numeric channel in the rich table. An event channel has hours since the first, and counts.
RICH = ("first", "hours_since_first", "sd", "range", "change", *_MEANS)
RICH_OF_EVENTS = ("hours_since_first", *_COUNTS)


def tabulate(dataset: SampleDataset, rows: np.ndarray, rich: bool = False) -> pd.DataFrame:
    """Compute the table of summary features of some samples.

    Args:
        dataset: the dataset of the samples.
        rows: the rows of SAMPLES to compute features for.
        rich: whether to append the rich features, all float32. For a numeric channel, these are the first value, the
            hours since the first value, the sample standard deviation (NaN for a single value), the range, and the
            last value minus the first. The means in the four quarters of the window follow, oldest first. For an event
            channel, they are the hours since the first event, and the counts in the four quarters.

    Returns:
        One row per sample, in the order of `rows`. Each numeric channel has its last, mean, min and max [canonical
        unit], slope [unit/day] by least squares, count, and hours since the last. Each event channel has its count and
        hours since the last. The static features follow, then `text`: the visible notes of the sample joined, oldest
        first. NaN = never measured.
    """
    blocks = []
    with progress() as bar:
        starts = range(0, len(rows), _SAMPLES_A_BLOCK)
        for start in bar.track(starts, description="tabulate"):
            blocks.append(_block(dataset, rows[start : start + _SAMPLES_A_BLOCK], rich))
    return pd.concat(blocks, ignore_index=True) if blocks else _block(dataset, rows, rich)


def without_rich(table: pd.DataFrame) -> pd.DataFrame:
    """Return the plain table that a rich table contains: all columns except the rich features, in the same order."""
    added = {f"__{name}" for name in (*RICH, *RICH_OF_EVENTS)}
    return table[[name for name in table.columns if "__" + name.rpartition("__")[2] not in added]]


def _block(dataset: SampleDataset, rows: np.ndarray, rich: bool) -> pd.DataFrame:
    items = dataset.__getitems__(rows)
    n_samples, n_channels = len(rows), len(dataset.channels)
    key = np.repeat(np.arange(n_samples), items.n_observations) * n_channels + items.channel
    value, hours = items.value.astype(float), items.hours.astype(float)
    features = _summaries(key, value, hours, n_samples * n_channels)
    columns: dict[str, np.ndarray | list[str]] = {}
    for i, spec in enumerate(dataset.channels):
        for name in STATISTICS if spec.kind == "numeric" else _OF_EVENTS:
            columns[f"{spec.name}__{name}"] = features[name].reshape(n_samples, n_channels)[:, i]
    for i, name in enumerate(STATICS):
        columns[name] = items.static[:, i].astype(float)
    columns["text"] = _texts(dataset, items)
    if rich:
        more = _courses(key, value, hours, features, dataset.window.series_hours)
        for i, spec in enumerate(dataset.channels):
            for name in RICH if spec.kind == "numeric" else RICH_OF_EVENTS:
                of_channel = more[name].reshape(n_samples, n_channels)[:, i]
                columns[f"{spec.name}__{name}"] = of_channel.astype(np.float32)
    return pd.DataFrame(columns)


def _summaries(key: np.ndarray, value: np.ndarray, hours: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Compute statistics of the facts of each key (sample x channel): (n,) each, NaN if there is no fact."""
    order = np.lexsort((hours, key))  # stable: of facts at one time, the last one in the store stays last
    key, value, hours = key[order], value[order], hours[order]
    count = np.bincount(key, minlength=n).astype(float)
    seen = count > 0
    first = np.searchsorted(key, np.flatnonzero(seen))
    last = np.r_[first[1:], len(key)].astype(np.int64) - 1

    def place(values: np.ndarray) -> np.ndarray:
        full = np.full(n, np.nan)
        full[seen] = values
        return full

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(key, values, minlength=n)

    with np.errstate(divide="ignore", invalid="ignore"):
        mean, when = total(value) / count, total(hours) / count
        days = (hours - when[key]) / 24
        spread = total(days**2)
        slope = np.where(spread > 1e-9, total(days * (value - mean[key])) / spread, np.nan)
    none = len(key) == 0
    return {
        "last": place(value[last] if not none else value),
        "mean": mean,
        "min": place(np.minimum.reduceat(value, first) if not none else value),
        "max": place(np.maximum.reduceat(value, first) if not none else value),
        "slope_per_day": slope,
        "count": count,
        "hours_since_last": place(-hours[last] if not none else hours),
    }


def _courses(
    key: np.ndarray, value: np.ndarray, hours: np.ndarray, features: dict[str, np.ndarray], window_hours: float
) -> dict[str, np.ndarray]:
    """Compute the rich statistics of each key (sample x channel): (n,) each, NaN if there is no fact.

    A quarter includes its older edge, and the last quarter also the prediction time. The bins of the deep models do the
    same.
    """
    n, count, mean = len(features["count"]), features["count"], features["mean"]
    # Reversed in time, the first fact is the last. Of facts at one time, the first one in the store counts.
    mirrored = _summaries(key[::-1], value[::-1], -hours[::-1], n)
    quarter = np.floor((hours + window_hours) * N_QUARTERS / window_hours).astype(np.int64).clip(0, N_QUARTERS - 1)
    cell = key * N_QUARTERS + quarter
    counts = np.bincount(cell, minlength=n * N_QUARTERS).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.bincount(cell, value, minlength=n * N_QUARTERS) / counts
        squares = np.bincount(key, (value - mean[key]) ** 2, minlength=n)
        sd = np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)
    return {
        "first": mirrored["last"],
        "hours_since_first": -mirrored["hours_since_last"],
        "sd": sd,
        "range": features["max"] - features["min"],
        "change": features["last"] - mirrored["last"],
        **dict(zip(_MEANS, means.reshape(n, N_QUARTERS).T, strict=True)),
        **dict(zip(_COUNTS, counts.reshape(n, N_QUARTERS).T, strict=True)),
    }


def _texts(dataset: SampleDataset, items: Items) -> list[str]:
    """Return the visible notes of each sample as one text; each note is read once."""
    if dataset.notes is None:
        return [""] * len(items.row)
    wanted = np.unique(items.note)
    body = dict(zip(wanted.tolist(), dataset.notes.texts(wanted), strict=True))
    notes = np.split(items.note, np.cumsum(items.n_notes)[:-1]) if len(items.row) else []
    return ["\n\n".join(body[note] for note in seen.tolist()) for seen in notes]
