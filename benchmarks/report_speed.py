"""What a report of many predictions costs: CPU seconds, wall time, peak memory and the size of the page.

    python benchmarks/report_speed.py --samples 1000000 --models 6 --json report_speed.json

The predictions are made up. Patients have two samples on average, and a tenth of the samples has the outcome. The
models take turns: risks of many digits, risks of two decimals (ties), and a score of sixteen values.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import show

_ROOT = Path(__file__).resolve().parents[1]
_SAMPLES_PER_DRAWN_SUBJECT = 1.6  # two for each subject that is drawn at least once


def write(path: Path, n: int, n_models: int, seed: int = 0) -> None:
    """Write PREDICTIONS of `n` held-out samples, model by model, so that little memory is needed."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-2.6, 1.0, n)
    samples = {
        "sample_id": np.arange(n),
        "subject_id": np.sort(rng.integers(int(n / _SAMPLES_PER_DRAWN_SUBJECT), size=n)) + 10_000_000,
        "prediction_time": pa.array(np.arange(n) * 3_600_000_000, pa.timestamp("us")),
        "label": (rng.random(n) < _sigmoid(odds)).astype(np.float32),
        "group_sex": pa.array(np.array(["F", "M"])[rng.integers(2, size=n)]),
        "group_age": pa.array(np.array(["18-44", "45-64", "65-79", "80+"])[rng.integers(4, size=n)]),
    }
    writer = None
    for i in range(n_models):
        risk = _sigmoid(odds + rng.normal(0, 0.3 + 0.2 * i, n))
        risk = [risk, np.round(risk, 2), np.round(np.minimum(risk, 0.6) * 25) / 25][i % 3]
        same = {"model": f"model_{i}", "split": "held_out", "output": "death"}
        constant = {name: pa.DictionaryArray.from_arrays(np.zeros(n, np.int8), [text]) for name, text in same.items()}
        table = pa.table(samples | constant | {"seed": np.zeros(n, np.int64), "prob": risk, "prob_calibrated": risk})
        table = table.cast(pa.schema([pa.field(f.name, _plain(f.type)) for f in table.schema]))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def measure(path: Path, out: Path) -> dict[str, Any]:
    """Make the report in a process of its own, and return what it cost."""
    command = [sys.executable, "-m", "ehrdl", "report", str(path), "--out", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the report failed with status {status}: {' '.join(command)}")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
        "page_mb": round((out / "report.html").stat().st_size / 1e6, 2),
    }


def main() -> None:
    """Write predictions, make their report, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000, help="samples that each model predicts")
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.parquet"
        write(path, options.samples, options.models)
        found = {"samples": options.samples, "models": options.models} | measure(path, Path(folder) / "out")
    show("report", found, options.json)


if __name__ == "__main__":
    main()
