"""Makes the metrics, the report and the manifest of a run from the files in its folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from ehrdl.audit.credible import check_credible, lines_above, scored
from ehrdl.engine.files import digest, json_text, read_json, write_json
from ehrdl.engine.messages import progress, say
from ehrdl.errors import ConfigError
from ehrdl.experiment.fitting import BEGUN, FACTS
from ehrdl.experiment.settings import Settings
from ehrdl.metrics.discrimination import auprc
from ehrdl.metrics.regression import r2
from ehrdl.report.checklists.evidence import RunFiles
from ehrdl.report.checklists.fill import write_checklists
from ehrdl.report.cohort.parts import read_cohort
from ehrdl.report.measures import measure
from ehrdl.report.page.html import write_report
from ehrdl.report.screen import print_metrics
from ehrdl.report.summary import summarize
from ehrdl.report.suppress import Shown
from ehrdl.runs import trail
from ehrdl.runs.folder import RunFolder, numbers_only
from ehrdl.runs.info import run_info
from ehrdl.runs.leak_audit import failures, read_audit, write_audit
from ehrdl.schema import TUNING

#: The results of a run, whose hashes enter the audit trail. The manifest has the hashes of the models.
_RESULTS = ("predictions.parquet", "metrics.json", "report.html")


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts about a run's data, task and models from its manifest.

    Before the run is finished there is no manifest, and the facts are read from a temporary file of the run.

    Raises:
        ConfigError: no model is fitted yet.
    """
    for name in ("manifest.json", FACTS):
        if (folder / name).is_file():
            found: dict[str, Any] = read_json(folder / name, dict)
            return found
    raise ConfigError(f"{folder}: its models are not fitted yet; call fit() first")


def read_table(folder: Path) -> pd.DataFrame:
    """Read the PREDICTIONS table of a run.

    Raises:
        ConfigError: no model is fitted yet.
    """
    read_facts(folder)
    table: pd.DataFrame = pq.read_table(folder / "predictions.parquet").to_pandas()
    return table


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of an evaluated run.

    Raises:
        ConfigError: the run is not evaluated yet.
    """
    if not (folder / "metrics.json").is_file():
        raise ConfigError(f"{folder}: is not evaluated yet; call evaluate() first")
    metrics: dict[str, Any] = read_json(folder / "metrics.json", dict)
    return metrics


def evaluate_run(settings: Settings, folder: RunFolder, predictions: pd.DataFrame) -> dict[str, Any]:
    """Score the held-out predictions of a run, write the metrics to `metrics.json`, and return them."""
    facts = read_facts(folder.folder)
    with folder.timed("metrics"), progress() as bar:
        job = bar.add_task("bootstrap", total=1000)
        advance = partial(bar.advance, job)
        metrics = measure(predictions, settings.report, run_info(facts), advance)
    write_json(folder.folder / "metrics.json", metrics)
    facts |= {"warnings": _complete_audit(metrics, settings, folder.folder), "wall_s": facts["wall_s"] | folder.wall_s}
    write_json(folder.folder / FACTS, facts)
    return metrics


def _complete_audit(metrics: dict[str, Any], settings: Settings, folder: Path) -> list[str]:
    """Add the check of the results to `leak_audit.json`, if the run has one, and return the warnings of all checks."""
    found = scored(metrics, settings.task.ceiling)
    lines = lines_above(found)
    for line in lines:
        say(f"warning: {line}")
    if not (audit := read_audit(folder)):
        return lines
    credible = check_credible(found).to_dict()
    checks = [check for check in audit["checks"] if check["name"] != credible["name"]]
    write_audit(folder, [*checks, credible])
    return [*failures(checks), *lines]


def finish(settings: Settings, folder: RunFolder, predictions: pd.DataFrame, metrics: dict[str, Any]) -> Path:
    """Write `report.html`, the checklists and the model card, and return the path of the report.

    The manifest is written last, since it marks the run as finished. The checklists name lines of it, so its content is
    made first. What is added to it later must come at its end.
    """
    facts = read_facts(folder.folder)
    manifest = folder.manifest(facts)
    flow = read_json(folder.folder / "flow.json", dict)
    options, audit, config = settings.report, read_audit(folder.folder), settings.resolved()
    summary = summarize(predictions, metrics, flow, manifest, config, options.min_count, audit)
    shown = Shown(options.min_count, run_info(manifest))
    summary |= read_cohort(folder.folder, manifest, summary["outputs"], shown)
    files = RunFiles.read(folder.folder).with_text("manifest.json", json_text(manifest))
    summary["checklists"] = write_checklists(folder.folder, summary, files, options.min_count)
    path = write_report(summary, folder.folder / "report.html")
    for name in (BEGUN, FACTS):
        (folder.folder / name).unlink(missing_ok=True)
    folder.finish(manifest | {"audit": _traced(folder, facts)})
    print_metrics(metrics, run_info(manifest), folder.folder)
    return path


def _traced(folder: RunFolder, facts: dict[str, Any]) -> dict[str, Any]:
    """Enter a finished run in the audit trail, and return the name of the trail and the hash of the entry."""
    entry = {"run": folder.folder.name, "source": facts["source"], "events": facts["events"]}
    entry |= {"config": digest(numbers_only(folder.config)), "files": trail.hashes(folder.folder, _RESULTS)}
    return {
        "trail": trail.TRAIL,
        "entry": trail.enter(folder.folder.parent, "train finished", entry, create=True),
    }


def best_checkpoint(folder: Path, predictions: pd.DataFrame) -> Path:
    """Return the checkpoint file of the best fit of a deep model.

    It has the highest AUPRC (R2 for a regression output) on the tuning samples, as a mean over outputs.
    """
    scores = {}
    for (model, seed), part in predictions.groupby(["model", "seed"], sort=False):
        path = folder / "checkpoints" / f"{model}-seed{seed}.ckpt"
        if path.is_file():
            known = part[(part.split == TUNING) & part.label.notna()]
            by_output = [
                float(auprc(rows.label, rows.prob) if rows.value.isna().all() else r2(rows.label, rows.value))
                for _, rows in known.groupby("output")
            ]
            scores[path] = sum(by_output) / len(by_output)
    return max(scores, key=lambda path: scores[path])
