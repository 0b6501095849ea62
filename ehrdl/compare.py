"""Compares finished runs on the same patients, and pools the seeds of runs that differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ehrdl import __version__
from ehrdl.engine.files import digest, read_json, write_json
from ehrdl.engine.folders import check_writable
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.info import ModelInfo, RunInfo
from ehrdl.options.training import ReportOptions
from ehrdl.report.cohort.parts import read_cohort
from ehrdl.report.measures import measure
from ehrdl.report.page.html import write_report
from ehrdl.report.predictions import read_predictions
from ehrdl.report.screen import print_metrics
from ehrdl.report.summary import summarize
from ehrdl.report.suppress import Shown
from ehrdl.runs import trail
from ehrdl.runs.files import check_config, read_manifest, reading
from ehrdl.runs.info import run_info
from ehrdl.schema import HELD_OUT, TUNING

#: Keys of a config that change no model: runs that differ only in these are one run with several seeds.
_NO_MODEL = ("run", "seeds", "logger", "report", "tune")
#: Keys of a manifest that hold for all runs on the same samples.
_SHARED = ("task", "task_info", "outputs", "data", "quality", "source", "missing")
_SAMPLE = ["output", "split", "sample_id", "subject_id", "prediction_time", "label"]


@dataclass(frozen=True)
class _Run:
    """A finished run.

    Attributes:
        folder: its folder.
        manifest: the content of `manifest.json`.
        fit: a hash of all keys of its config that can change a model.
        table: its PREDICTIONS table.
    """

    folder: Path
    manifest: dict[str, Any]
    fit: str
    table: pd.DataFrame


def compare(
    runs: Sequence[Path],
    out: Path,
    options: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    on_draws: Callable[[int], object] = lambda _: None,
) -> Path:
    """Score the models of several runs on the same samples with the same draws, and write one report.

    A model of one run keeps its name, and so does one whose predictions are equal in all runs. Other models of the same
    name are called `RUN: MODEL`. Runs whose configs differ only in their seeds are pooled: their models have all seeds.

    Args:
        runs: the folders of two or more finished runs.
        out: the folder for `metrics.json` and `report.html`.
        options: the options of the report.
        on_draws: function that is called with the number of bootstrap draws that were made.

    Returns:
        The path of the report.

    Raises:
        ConfigError: fewer than two runs are given, a folder holds no finished run, or the runs predict other samples.
        SchemaError: a PREDICTIONS file is damaged.
    """
    check_writable(out, "--out")
    if len({folder.resolve() for folder in runs}) < max(2, len(runs)):
        raise ConfigError("compare: give two or more different runs")
    found = [_read(folder) for folder in runs]
    for other in found[1:]:
        _check_same(found[0], other)
    table, models = _joined(_pooled(found))
    shared = {key: found[0].manifest[key] for key in _SHARED if key in found[0].manifest}
    manifest = shared | {
        "models": [model.to_dict() for model in models],
        "command": " ".join(["ehrdl compare", *map(str, runs)]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ehrdl": __version__,
        "seeds": sorted({seed for run in found for seed in run.manifest["seeds"]}),
    }
    info = run_info(manifest)
    metrics = measure(table, options, info, on_draws)
    flow = read_json(found[0].folder / "flow.json", dict) if (found[0].folder / "flow.json").is_file() else {}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", metrics)
    summary = summarize(table, metrics, flow, manifest, min_count=options.min_count)
    summary |= read_cohort(found[0].folder, manifest, summary["outputs"], Shown(options.min_count, info))
    report = write_report(summary, out / "report.html")
    for root in dict.fromkeys(run.resolve().parent for run in runs):
        made = trail.hashes(out, ["metrics.json", "report.html"])
        files = {(out.resolve() / name).as_posix(): made[name] for name in made}
        trail.enter(root, "compare", {"runs": [run.name for run in runs], "files": files})
    print_metrics(metrics, info, out)
    return report


def _read(folder: Path) -> _Run:
    """Read a finished run.

    Raises:
        ConfigError: the folder holds no finished run, or a file of it has changed.
    """
    if not (folder / "manifest.json").is_file():
        raise ConfigError(f"{folder}: holds no finished run (there is no manifest.json); name a run's folder")
    manifest = read_manifest(folder)
    check_config(folder, manifest)
    with reading(folder / "config.yaml", "config"):
        config = dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    kept = {key: value for key, value in config.items() if key not in _NO_MODEL}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "prepare"}
    with reading(folder / "manifest.json", "manifest"):
        run_info(manifest)
    table = read_predictions(folder / "predictions.parquet").table
    return _Run(folder, manifest, digest(kept), table[table["split"].isin([TUNING, HELD_OUT])])


def _check_same(first: _Run, other: _Run) -> None:
    """Check that two runs predict the same samples.

    Raises:
        ConfigError: they do not; the message names what differs.
    """
    mine, theirs = (
        run.table[_SAMPLE].drop_duplicates().sort_values(_SAMPLE[:3], ignore_index=True) for run in (first, other)
    )
    if mine.equals(theirs):
        return
    outputs = [", ".join(map(str, table["output"].unique())) for table in (mine, theirs)]
    if outputs[0] != outputs[1]:
        raise ConfigError(f"{other.folder}: predicts {outputs[1]}, but {first.folder} predicts {outputs[0]}")
    sizes = [int((table["split"] == HELD_OUT).sum()) for table in (theirs, mine)]
    raise ConfigError(
        f"{other.folder}: predicts other samples than {first.folder} ({sizes[0]:,} and {sizes[1]:,} held out); only "
        "runs with the same data, task and split can be compared"
    )


def _pooled(runs: list[_Run]) -> dict[str, tuple[pd.DataFrame, list[ModelInfo]]]:
    """Pool the runs that differ only in their seeds, and return each pool's table and models by its name."""
    pools: list[list[_Run]] = []
    for run in runs:
        fitting = (pool for pool in pools if all(_differ_in_seeds(run, other) for other in pool))
        pool = next(fitting, None)
        if pool is None:
            pools.append([run])
        else:
            pool.append(run)
    names = [run.folder.name for run in runs]
    result = {}
    for pool in pools:
        called = [run.folder.name if names.count(run.folder.name) == 1 else str(run.folder) for run in pool]
        if len(pool) > 1:
            say(f"compare: {' and '.join(called)} differ only in their seeds, and are pooled")
        table = pd.concat([run.table for run in pool], ignore_index=True)
        table = table.drop_duplicates(["output", "sample_id", "model", "seed"], ignore_index=True)
        result["+".join(called)] = (table, [ModelInfo.from_dict(model) for model in pool[0].manifest.get("models", [])])
    return result


def _differ_in_seeds(one: _Run, other: _Run) -> bool:
    """Return whether two runs differ in their seeds, of which they share none, and in nothing else."""
    return one.fit == other.fit and not set(one.manifest["seeds"]) & set(other.manifest["seeds"])


def _joined(pools: dict[str, tuple[pd.DataFrame, list[ModelInfo]]]) -> tuple[pd.DataFrame, list[ModelInfo]]:
    """Join the pools' tables and models, with names that tell the pools apart where their predictions differ."""
    parts: list[pd.DataFrame] = []
    models: list[ModelInfo] = []
    shared: dict[str, pd.DataFrame] = {}
    clashing = _clashing([table for table, _ in pools.values()])
    for pool, (table, infos) in pools.items():
        known = RunInfo({info.name: info for info in infos}).models
        for model, rows in table.groupby("model", sort=False):
            name = f"{pool}: {model!s}" if model in clashing else str(model)
            if name in shared:  # equal in all pools, so once is enough
                continue
            shared[name] = rows
            parts.append(rows.assign(model=name))
            if model in known:
                models.append(replace(known[str(model)], name=name))
    order = [info.name for _, infos in pools.values() for info in infos]
    models.sort(key=lambda info: order.index(info.name.rpartition(": ")[2]))
    return pd.concat(parts, ignore_index=True), models


def _clashing(tables: list[pd.DataFrame]) -> set[str]:
    """Return the names of models that have other predictions in another table."""
    found = set()
    seen: dict[str, pd.DataFrame] = {}
    for table in tables:
        for model, rows in table.groupby("model", sort=False):
            ordered = rows.sort_values(["output", "seed", "sample_id"], ignore_index=True)
            first = seen.setdefault(str(model), ordered)
            same = len(first) == len(ordered) and all(
                np.array_equal(first[name].to_numpy(np.float64), ordered[name].to_numpy(np.float64), equal_nan=True)
                for name in ("seed", "prob", "value")
            )
            if not same:
                found.add(str(model))
    return found
