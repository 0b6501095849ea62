"""The same samples as one row of summary features each: what classical models read.

Every value comes from the slice that the dataset shows the deep models (same cut, same window, same channels,
same cap), so a difference between models is never a difference between inputs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ehrdl.data.dataset import Items, SampleDataset
from ehrdl.data.static import STATICS
from ehrdl.engine import progress

_SAMPLES_A_BLOCK = 2000
STATISTICS = ("last", "mean", "min", "max", "slope_per_day", "count", "hours_since_last")


def tabulate(dataset: SampleDataset, rows: np.ndarray) -> pd.DataFrame:
    """Summary features of some samples.

    Returns:
        One row a sample, in the order of `rows`: for each numeric channel its last, mean, min and max [canonical unit],
        slope [unit/day] by least squares, count, and hours since the last; for each event channel its count and hours
        since the last; the static features; `text`, the visible notes joined, oldest first. NaN = never measured.
    """
    blocks = []
    with progress() as bar:
        starts = range(0, len(rows), _SAMPLES_A_BLOCK)
        for start in bar.track(starts, description="tabulate"):
            blocks.append(_block(dataset, rows[start : start + _SAMPLES_A_BLOCK]))
    return pd.concat(blocks, ignore_index=True) if blocks else _block(dataset, rows)


def _block(dataset: SampleDataset, rows: np.ndarray) -> pd.DataFrame:
    items = dataset.__getitems__(rows)
    n_samples, n_channels = len(rows), len(dataset.channels)
    key = np.repeat(np.arange(n_samples), items.n_observations) * n_channels + items.channel
    features = _summaries(key, items.value.astype(float), items.hours.astype(float), n_samples * n_channels)
    columns: dict[str, np.ndarray | list[str]] = {}
    for i, spec in enumerate(dataset.channels):
        wanted = STATISTICS if spec.kind == "numeric" else ("count", "hours_since_last")
        for name in wanted:
            columns[f"{spec.name}__{name}"] = features[name].reshape(n_samples, n_channels)[:, i]
    for i, name in enumerate(STATICS):
        columns[name] = items.static[:, i].astype(float)
    columns["text"] = _texts(dataset, items)
    return pd.DataFrame(columns)


def _summaries(key: np.ndarray, value: np.ndarray, hours: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Statistics of the facts of each key (sample x channel); (n,) each, NaN where there is no fact."""
    order = np.lexsort((hours, key))  # stable: of facts at one time, the one that the store lists last stays last
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


def _texts(dataset: SampleDataset, items: Items) -> list[str]:
    """The visible notes of each sample, each note read once."""
    if dataset.notes is None:
        return [""] * len(items.row)
    wanted = np.unique(items.note)
    body = dict(zip(wanted.tolist(), dataset.notes.texts(wanted), strict=True))
    notes = np.split(items.note, np.cumsum(items.n_notes)[:-1]) if len(items.row) else []
    return ["\n\n".join(body[note] for note in seen.tolist()) for seen in notes]
