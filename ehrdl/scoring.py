"""Scores new patients with the models of a finished run: prepare -> load -> predict -> PREDICTIONS.

Nothing is fitted. Of the run, only its folder is needed, and neither its cache nor its training data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.batch import DataSpec
from ehrdl.data.config import DataConfig
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.folders import check_writable, filling
from ehrdl.engine.messages import progress, say
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.quality import tell
from ehrdl.runs import trail
from ehrdl.runs.files import check_files, read_manifest, reading
from ehrdl.tasks.common.base import Task

if TYPE_CHECKING:
    import pandas as pd

    from ehrdl.data.apply import Fitted
    from ehrdl.data.prepare import Prepared

#: The number of names shown of a long list. The others are counted, and `gaps.json` holds them all.
_NAMES_SHOWN = 12


@dataclass(frozen=True)
class FinishedRun:
    """A finished run. All its files were checked to be complete and unchanged.

    Attributes:
        folder: the run's folder.
        manifest: the run's manifest.
        files: the files from which the models are read, as paths within the folder.
    """

    folder: Path
    manifest: dict[str, Any]
    files: frozenset[str]


def score(
    run: FinishedRun,
    data: DataConfig,
    task: Task,
    model: Callable[[DataSpec], Network],
    trainer: dict[str, Any],
    out: Path | None = None,
    same_hospital: bool = False,
) -> Path:
    """Score new patients with every model of a finished run, and write the PREDICTIONS table.

    Args:
        run: the finished run, from `check_run`.
        data: the configuration of the new patients' data: the run's configuration with another source or folder.
        task: the task of the run. Labels are computed where possible, and no model reads them.
        model: the function that makes the network from a `DataSpec`, the same as in the run.
        trainer: arguments of the Lightning trainer; only accelerator and precision are used.
        out: the folder to write to; None = a folder named after the new data, in the subfolder `predict/` of the run's
            folder.
        same_hospital: whether the new patients are of the run's own hospital, from another time. The report then calls
            the results temporal validation instead of external validation.

    Returns:
        The folder with `predictions.parquet`, `flow.json`, `cohort.json` (who was predicted), `gaps.json` (what the new
        data lack) and `manifest.json`.

    Raises:
        EhrdlError: `model` makes another architecture than the run has, or the run's models cannot read the new data.
    """
    check_writable(out or run.folder / "predict", "--out")
    thresholds = _thresholds(run.folder)
    data.source.fingerprint(data.prepare.verify)
    from ehrdl.data.apply import apply
    from ehrdl.data.description.cohort import describe_cohort
    from ehrdl.data.prepare import find_quality, find_samples, read_events
    from ehrdl.report.screen import print_flow
    from ehrdl.runs.validation import relation

    fitted = _fitted(run, data)
    events = read_events(data)
    quality = tell(find_quality(data, events), data.prepare.strict)
    result = find_samples(events, task)
    print_flow(result.flow)
    prepared, gaps = apply(data, events, result, fitted)
    for line in describe_gaps(gaps):
        say(f"note: {line}")
    parts = _predictions(run, prepared, data, model, trainer, task.simulated)
    target = out or run.folder / "predict" / events.name
    kept = ("ehrdl", "git", "seeds", "versions", "task", "task_info", "outputs", "models", "calibrate")
    facts = {key: run.manifest.get(key) for key in kept}
    facts["thresholds"] = thresholds
    facts |= {"run": str(run.folder), "source": type(data.source).__name__, "missing": describe_gaps(gaps)}
    facts |= {"warnings": [], "quality": quality}
    described = {"flow.json": result.cohort(data.source.caveats), "gaps.json": gaps}
    described["cohort.json"] = describe_cohort(prepared, data.source)
    new = described["cohort.json"] | {"events": events.name}
    facts["events"] = events.name
    facts["validation"] = relation(
        run.folder, run.manifest, fitted.spec, new, prepared.samples, describe_gaps(gaps), same_hospital
    )
    _write(target, parts, described, facts, run.folder)
    return target


def _write(
    target: Path, parts: list[pd.DataFrame], described: dict[str, Any], manifest: dict[str, Any], run: Path
) -> None:
    """Write all files of a result, or none, and enter them in the audit trail."""
    from ehrdl.training.predict import write_predictions

    with filling(target) as folder:
        table = write_predictions(parts, folder / "predictions.parquet")
        for name, content in described.items():
            write_json(folder / name, content)
        facts = trail.files_of(run, target, trail.hashes(folder, ["predictions.parquet"]))
        facts |= {key: manifest[key] for key in ("source", "events")}
        manifest["audit"] = {"trail": trail.TRAIL, "entry": trail.enter(run.resolve().parent, "predict", facts)}
        write_json(folder / "manifest.json", manifest)
    _say_result(table, target)


def _fitted(run: FinishedRun, data: DataConfig) -> Fitted:
    """Read the description of the run's data and find the run's tokenizer."""
    from ehrdl.data.apply import Fitted

    path = run.folder / "spec.json"
    with reading(path, "description of the data"):
        spec = DataSpec.from_dict(read_json(path, dict))
    own = any(name.startswith("tokenizer/") for name in run.files)
    words = run.folder / "tokenizer"
    tokenizer = str(words) if own else data.notes.tokenizer
    if "note" in spec.modalities and tokenizer is None:
        raise ConfigError(f"{words}: is missing, and the run reads notes; copy it from where it was made")
    return Fitted(spec=spec, tokenizer=tokenizer, events=run.manifest.get("events"))


def check_run(folder: Path) -> FinishedRun:
    """Check that a folder is a finished run, and that its files are complete and unchanged.

    Raises:
        ConfigError: the folder is not a finished run, or one of its files is missing or has changed. The message names
            the file.
    """
    if not folder.is_dir():
        raise ConfigError(f"--run {folder}: there is no such folder; give a finished run, such as runs/quickstart")
    for name in ("config.yaml", "manifest.json", "spec.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"--run {folder}: is no finished run ({name} is missing); its config finishes it")
    manifest = read_manifest(folder)
    return FinishedRun(folder, manifest, check_files(folder, manifest))


def _predictions(
    run: FinishedRun,
    prepared: Prepared,
    data: DataConfig,
    model: Callable[[DataSpec], Network],
    trainer: dict[str, Any],
    simulated: bool,
) -> list[pd.DataFrame]:
    """Predict with every model of the run: one frame per model and seed. Baselines have the run's first seed."""
    import numpy as np

    from ehrdl.comparators.combine import combined
    from ehrdl.comparators.risk import stored_risks
    from ehrdl.comparators.saved import baseline_probs, load_deep
    from ehrdl.data.module import ClinicalDataModule
    from ehrdl.training.predict import TRUTH, predict, prediction_rows, read_calibrators, true_risk

    folder, seed0 = run.folder, run.manifest["seeds"][0]
    calibrators = read_calibrators(folder / "calibration.json")
    outputs = prepared.spec.outputs
    every = np.arange(len(prepared.samples))
    jobs: list[tuple[str, int, Any, Any]] = []
    models = {Path(name).name for name in run.files if name.startswith("models/")}
    for name, prob in baseline_probs(folder / "models", prepared, models):
        jobs.append((name, seed0, every, stored_risks(name, outputs, prob, folder / "models", models)))
    module = ClinicalDataModule(prepared, data.batch)
    with progress() as bar:
        for name, seed, path in bar.track(list(_checkpoints(run)), description="deep models"):
            rows, prob = predict(load_deep(path, model, data.prepare.cache), module.every_dataloader(), trainer)
            prob = stored_risks(path.stem, outputs, prob, folder / "models", models)
            jobs.append((name, seed, rows, prob))
    parts = [
        prediction_rows(prepared.samples, outputs, name, seed, rows, prob, calibrators.get((name, seed), {}))
        for name, seed, rows, prob in jobs
    ]
    if not parts:
        raise ConfigError(f"--run {folder}: holds no model (checkpoints/ and models/ are empty)")
    parts += combined(folder / "models", prepared, parts, seed0, calibrators, models)
    truth = calibrators.get((TRUTH.name, seed0), {})
    return parts + (true_risk(prepared, every, seed0, truth) if simulated else [])


def _thresholds(run: Path) -> dict[str, list[float | None]]:
    """Return, for each model, the alarm thresholds that the run chose, one per seed; empty if it scored no alarms."""
    path = run / "metrics.json"
    with reading(path, "table of metrics"):
        outputs = read_json(path, dict)["outputs"].values() if path.is_file() else []
        found = [models["utility"] for models in outputs if "utility" in models]
        return {name: values["thresholds"] for models in found for name, values in models.items()}


def _checkpoints(run: FinishedRun) -> Iterator[tuple[str, int, Path]]:
    """Yield the name, seed and file of every deep model of a run."""
    for name in sorted(run.files):
        if match := re.fullmatch(r"checkpoints/(\w+)-seed(\d+)\.ckpt", name):
            yield match[1], int(match[2]), run.folder / name


def describe_gaps(gaps: dict[str, Any]) -> list[str]:
    """Describe how new data differ from the run's data, one line for each difference; empty if they do not differ.

    Args:
        gaps: the content of `gaps.json`: names and counts of what the new data lack or add.
    """
    lines = [str(line) for line in gaps["missing"]]
    n = gaps["samples"]
    if absent := gaps["channels_absent"]:
        lines.append(f"{len(absent)} channels that the models know are absent here, read as missing: {_some(absent)}")
    if unknown := gaps["channels_unknown"]:
        facts = sum(unknown.values())
        lines.append(
            f"{len(unknown)} channels that the models never saw are left out ({facts:,} facts): {_some(list(unknown))}"
        )
    if units := gaps["unknown_units"]:
        lines.append(
            f"{sum(units.values()):,} values of {len(units)} codes are in units that data.concepts does not know, "
            f"and are left out: {_some([f'{code} ({n_values:,})' for code, n_values in units.items()])}"
        )
    if implausible := gaps["implausible_values"]:
        lines.append(f"{sum(implausible.values()):,} values outside their plausible range are left out")
    for kind in ("note", "series"):
        without = gaps[f"samples_without_{kind}"]
        if n and without / n > 0.5:
            lines.append(f"{without:,} of {n:,} samples have no {kind} in the window")
    return lines


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _say_result(table: pd.DataFrame, target: Path) -> None:
    known = int(table[["sample_id", "output", "label"]].drop_duplicates()["label"].notna().sum())
    models = ", ".join(dict.fromkeys(table["model"]))
    path = target / "predictions.parquet"
    say(f"{table['sample_id'].nunique():,} samples scored by {models}; {known:,} labels are known")
    say(f"predictions: {path}\nnext: ehrdl report {path}" if known else f"predictions: {path}")
