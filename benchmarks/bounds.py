"""Hourly samples of many stays: how long and in how much memory each sample's window is found, and the samples ordered.

    python benchmarks/bounds.py --json bounds.json

writes a store of random facts into a temporary folder; then, in one process: the bounds, the dataset, which samples see
anything, and a training order.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cohort import channel_specs
from measure import PeakMemory, show

from ehrdl.clinical import concepts
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.sampler import LengthBuckets
from ehrdl.data.series.store import Store
from ehrdl.data.window import Window, bounds
from ehrdl.schema import HOUR

_STAYS_A_BLOCK = 5_000
_BATCH = 64


def write_facts(folder: Path, hours: np.ndarray, facts_an_hour: int) -> Store:
    """A store of stays of so many hours, one after the other in time; written a block at a time."""
    n_facts = hours * facts_an_hour
    rng = np.random.default_rng(0)
    kinds = {"available": np.int64, "channel": np.uint16, "value": np.float32}
    files = {name: (folder / name).open("wb") for name in kinds}
    for first in range(0, len(hours), _STAYS_A_BLOCK):
        block = slice(first, first + _STAYS_A_BLOCK)
        stay = np.repeat(np.arange(len(hours))[block], n_facts[block])
        at = (rng.random(len(stay)) * hours[stay] * HOUR).astype(np.int64)
        at = at[np.lexsort((at, stay))] + stay * (24 * HOUR)
        at.tofile(files["available"])
        rng.integers(0, 100, len(stay), dtype=np.uint16).tofile(files["channel"])
        np.zeros(len(stay), np.float32).tofile(files["value"])
    for file in files.values():
        file.close()
    mapped = {name: np.memmap(folder / name, kind, "r") for name, kind in kinds.items()}
    offsets = np.r_[0, np.cumsum(n_facts)].astype(np.int64)
    return Store(
        **mapped,
        time=mapped["available"],
        subjects=np.arange(len(hours), dtype=np.int64),
        offsets=offsets,
        channels=concepts.load().channels,
        counts={},
    )


def stays(n_samples: int, n_stays: int) -> np.ndarray:
    """Hours of each stay, log-normal, at least one; their sum is `n_samples`."""
    length = np.random.default_rng(1).lognormal(0, 0.8, n_stays)
    edges = np.round(np.cumsum(length) / length.sum() * (n_samples - n_stays)).astype(np.int64)
    return 1 + np.diff(edges, prepend=0)


def hourly(hours: np.ndarray) -> pd.DataFrame:
    """SAMPLES: a prediction after each hour of each stay."""
    stay = np.repeat(np.arange(len(hours)), hours)
    hour = 1 + np.arange(len(stay)) - np.repeat(np.cumsum(hours) - hours, hours)
    when = (stay * 24 + hour) * HOUR
    label = (stay % 2).astype(np.float32)
    return pd.DataFrame({"subject_id": stay, "prediction_time": when.astype("datetime64[us]"), "label_outcome": label})


def measure(samples: pd.DataFrame, store: Store) -> dict[str, Any]:
    """Seconds of each step, and the most memory of the process up to its end [MB]."""
    found: dict[str, Any] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        with PeakMemory() as memory:
            result = step()
        found[f"{name}_s"] = round(time.perf_counter() - began, 2)
        found[f"{name}_peak_mb"] = round(memory.peak_mb)
        return result

    window, subject = Window(), samples.subject_id.to_numpy()
    t = samples.prediction_time.to_numpy().astype(np.int64)
    span = round(window.series_hours * HOUR)
    timed("bounds", lambda: bounds(store.available, store.offsets, store.subjects, subject, t, span))
    static = np.zeros((len(samples), 1), np.float32)
    dataset = timed("dataset", lambda: SampleDataset(samples, static, store, None, window, channel_specs()))
    timed("presence", dataset.has_series)
    length, rows = dataset.n_observations(), np.arange(len(samples))
    timed("epoch", lambda: list(map(len, LengthBuckets(subject, length, rows, _BATCH, True, None, 0))))
    return found


def main() -> None:
    """Write facts, find windows, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6_000_000, help="hourly samples of all stays")
    parser.add_argument("--stays", type=int, default=70_000)
    parser.add_argument("--facts-an-hour", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    hours = stays(options.samples, options.stays)
    with tempfile.TemporaryDirectory(prefix="ehrdl-bounds-") as folder:
        store = write_facts(Path(folder), hours, options.facts_an_hour)
        found: dict[str, Any] = {"samples": options.samples, "stays": options.stays, "facts": len(store.value)}
        found |= measure(hourly(hours), store)
    found["peak_mb"] = max(value for name, value in found.items() if name.endswith("_peak_mb"))
    show("bounds", found, options.json)


if __name__ == "__main__":
    main()
