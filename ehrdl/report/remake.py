"""A report from PREDICTIONS alone: whoever made them, with whatever model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ehrdl.engine import read_json, write_json
from ehrdl.errors import SchemaError
from ehrdl.metrics.evaluate import evaluate
from ehrdl.report.html import write_report
from ehrdl.report.summary import summarize
from ehrdl.schema import PREDICTIONS, check


def remake(predictions: Path, out: Path | None = None, on_draws: Callable[[int], object] = lambda _: None) -> Path:
    """Evaluate a PREDICTIONS file and write `metrics.json` and `report.html`.

    Args:
        predictions: the Parquet file, or the folder that holds `predictions.parquet`. `flow.json`, `manifest.json` and
            `config.yaml` beside it enter the report.
        out: folder for the results; by default the file's own.
        on_draws: called with the number of bootstrap draws that were made.

    Returns:
        The report.

    Raises:
        SchemaError: no such file, not PREDICTIONS, or no label to compare with.
    """
    path = predictions / "predictions.parquet" if predictions.is_dir() else predictions
    table = read_predictions(path)
    if not table.label.notna().any():
        raise SchemaError(f"{path}: column label: no label is known, so there is nothing to compare with")
    beside = {name: _read(path.parent / name) for name in ("flow.json", "manifest.json", "config.yaml")}
    outputs = (beside["manifest.json"] or {}).get("outputs") or []
    metrics = evaluate(
        table,
        on_draws=on_draws,
        units={output["name"]: output["unit"] for output in outputs},
        thresholds=(beside["manifest.json"] or {}).get("thresholds"),
    )
    folder = out or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    summary = summarize(table, metrics, beside["flow.json"], beside["manifest.json"], beside["config.yaml"])
    return write_report(summary, folder / "report.html")


def read_predictions(path: Path) -> pd.DataFrame:
    """A checked PREDICTIONS table.

    Raises:
        SchemaError: the file is not there, is no Parquet, or breaks a rule of the table.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file; give the predictions.parquet of a run or of ehrdl predict")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise SchemaError(f"{path}: is no Parquet file of PREDICTIONS ({reason})") from None
    frame: pd.DataFrame = check(table, PREDICTIONS).to_pandas()
    return frame


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = (
        yaml.safe_load(path.read_text(encoding="utf-8")) if path.suffix == ".yaml" else read_json(path)
    )
    return content
