"""Makes a report from a PREDICTIONS file alone, whichever program and model made the predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ehrdl.engine.files import json_text, read_json, write_json
from ehrdl.engine.folders import check_writable
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import RunInfo
from ehrdl.options.training import ReportOptions
from ehrdl.report.checklists.evidence import RunFiles
from ehrdl.report.checklists.fill import write_checklists
from ehrdl.report.cohort.parts import read_cohort
from ehrdl.report.measures import measure
from ehrdl.report.page.html import write_report
from ehrdl.report.predictions import read_predictions
from ehrdl.report.summary import summarize, summarize_foreign
from ehrdl.report.suppress import Shown
from ehrdl.runs import trail
from ehrdl.runs.files import check_config, reading
from ehrdl.runs.info import run_info
from ehrdl.runs.leak_audit import FILE, read_audit


def remake(
    predictions: Path,
    out: Path | None = None,
    on_draws: Callable[[int], object] = lambda _: None,
    min_count: int | None = None,
    risks: list[float] | None = None,
    groups: list[str] | None = None,
    group_file: str | None = None,
) -> Path:
    """Evaluate a PREDICTIONS file and write `metrics.json`, `report.html`, `checklists.json` and `model_card.md`.

    Args:
        predictions: the PREDICTIONS file, or the folder that holds `predictions.parquet`. If the folder also holds a
            `manifest.json`, the file is part of a run, and the report also shows `flow.json` and `config.yaml`.
            Otherwise the report shows only the content of the file.
        out: the folder to write to; None = the folder of the PREDICTIONS file.
        on_draws: a function that is called with the number of new bootstrap draws, for a progress bar.
        min_count: the smallest number of patients in a group that is shown. None = `report.min_count` of the run's
            `config.yaml`, or 10 if there is none.
        risks: the thresholds of the risk at which alarms are scored; by default those of the config beside the file, or
            0.1 and 0.2.
        groups: the columns of groups and pairs of them to show; by default those of the config, or all columns.
        group_file: a file with further groups; by default that of the config, if any.

    Returns:
        The path of the report.

    Raises:
        SchemaError: the PREDICTIONS file does not exist, lacks columns, or has no labels, or the file of groups is bad.
        ConfigError: the folder `out` is not writable, a column of `groups` does not exist, or another file of the run
            is damaged.
    """
    path = predictions / "predictions.parquet" if predictions.is_dir() else predictions
    folder = out or path.parent
    check_writable(folder, "--out")
    read = read_predictions(path)
    if not read.table.label.notna().any():
        raise SchemaError(f"{path}: column label: no label is known, so there is nothing to compare with")
    beside = _beside(path.parent)
    given: dict[str, Any] = {"min_count": min_count, "risks": risks, "groups": groups, "group_file": group_file}
    options = replace(_options(beside.config), **{name: value for name, value in given.items() if value is not None})
    info = beside.info
    if beside.manifest and not info.models:
        say(f"note: {path.parent / 'manifest.json'}: describes no models, so none is compared with the others")
    if info.utilities and not read.timed:
        raise SchemaError(
            f"{path}: column prediction_time is missing, and the utility of {min(info.utilities)} needs it"
        )
    files = RunFiles.read(path.parent) if beside.manifest else RunFiles({})
    with _naming(path):
        metrics = measure(read.table, options, info, on_draws)
    summary = (
        summarize(
            read.table, metrics, beside.flow, beside.manifest, beside.config, options.min_count, beside.leak_audit
        )
        if beside.manifest
        else summarize_foreign(read, metrics, path.name, options.min_count)
    )
    if beside.manifest:
        shown = Shown(options.min_count, info)
        summary |= read_cohort(path.parent, beside.manifest, summary["outputs"], shown)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    with reading(path.parent / "manifest.json", "manifest"):
        files = files.with_text("metrics.json", json_text(metrics))
        summary["checklists"] = write_checklists(folder, summary, files, options.min_count)
    report = write_report(summary, folder / "report.html")
    if beside.manifest:
        run = Path(beside.manifest["run"]) if "run" in beside.manifest else path.parent
        made = trail.files_of(run, folder, trail.hashes(folder, ["metrics.json", "report.html"]))
        trail.enter(run.resolve().parent, "report", made)
    return report


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors about the table that was read from it."""
    try:
        yield
    except SchemaError as error:
        text = str(error)
        if not text.startswith("PREDICTIONS: "):  # it names another file
            raise
        raise SchemaError(f"{path}: {text.removeprefix('PREDICTIONS: ')}") from None


def _options(config: dict[str, Any]) -> ReportOptions:
    """Return the options of the report in a run's config; the defaults if it has none that are valid."""
    given = config.get("report")
    known = {field.name for field in fields(ReportOptions)}
    if not isinstance(given, dict):
        return ReportOptions()
    with suppress(ConfigError, TypeError):
        return ReportOptions(**{name: value for name, value in given.items() if name in known})
    return ReportOptions()


@dataclass(frozen=True)
class _Beside:
    """The other files in the folder of a PREDICTIONS file that `ehrdl` made; empty for a file of other origin."""

    manifest: dict[str, Any] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    leak_audit: dict[str, Any] = field(default_factory=dict)
    info: RunInfo = RunInfo()  # noqa: RUF009 - frozen


def _beside(folder: Path) -> _Beside:
    """Read the run's files in a folder.

    Without a manifest nothing is read, because a config or flow chart alone does not tell the origin of the
    predictions.
    """
    if not (folder / "manifest.json").is_file():
        return _Beside()
    manifest: dict[str, Any] = read_json(folder / "manifest.json", dict)
    with reading(folder / "manifest.json", "manifest"):
        info = run_info(manifest)
    flow = read_json(folder / "flow.json", dict) if (folder / "flow.json").is_file() else {}
    with reading(folder / "flow.json", "flow chart"):
        for step in flow.get("steps") or []:
            _ = step["step"], int(step["admissions"]), int(step["subjects"])
    config: Any = {}
    check_config(folder, manifest)
    if (folder / FILE).is_file():  # it may stay behind where a run's folder is copied in part
        check_config(folder, manifest, FILE)
    if (folder / "config.yaml").is_file():
        with reading(folder / "config.yaml", "config"):
            config = dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    return _Beside(manifest, flow, config, read_audit(folder), info)
