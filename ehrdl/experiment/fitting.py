"""Fits all models of an experiment: baselines, deep models with every seed, and combinations of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ehrdl.audit.audit import audit
from ehrdl.audit.audited import Audited
from ehrdl.cohort import Cohort
from ehrdl.comparators.baseline import fit_baselines
from ehrdl.comparators.combine import fit_combined
from ehrdl.comparators.known import model_infos
from ehrdl.comparators.risk import to_risks
from ehrdl.comparators.saved import write_encoders
from ehrdl.data.description.cohort import describe_cohort
from ehrdl.data.module import ClinicalDataModule
from ehrdl.engine.files import digest, write_json, write_text
from ehrdl.errors import ConfigError
from ehrdl.experiment.checks import Plan
from ehrdl.experiment.settings import Settings
from ehrdl.runs import ledger, trail
from ehrdl.runs.files import copy_folder
from ehrdl.runs.folder import RunFolder, numbers_only
from ehrdl.runs.leak_audit import FILE
from ehrdl.runs.logger import Tracker
from ehrdl.schema import HELD_OUT, TUNING
from ehrdl.training.fit import fit
from ehrdl.training.lit import LitNetwork
from ehrdl.training.predict import predict, prediction_rows, true_risk, write_calibrators, write_predictions
from ehrdl.training.setup import Fit, Training
from ehrdl.training.variants import variants

#: Files of an unfinished run: the identity of its data, and the facts for its manifest.
BEGUN, FACTS = ".data", ".facts.json"


def begin(settings: Settings, folder: RunFolder, cohort: Cohort) -> None:
    """Make the run's folder, and write the cohort's flow chart and the description of the data into it.

    Raises:
        ConfigError: the folder holds a run that was begun on other data. The configuration may be the same, if a data
            file has changed since.
    """
    prepared = cohort.prepared
    path = folder.folder / BEGUN
    resumes = path.is_file() and not folder.options.overwrite
    if path.is_file() and not folder.options.overwrite and path.read_text("utf-8") != prepared.identity():
        raise ConfigError(
            f"{folder.folder}: was begun on other data than {prepared.events} now holds; choose another run.name, or "
            "--run.overwrite true"
        )
    folder.open()
    write_json(folder.folder / "flow.json", cohort.result.cohort(settings.data.source.caveats))
    with folder.timed("describe"):
        write_json(folder.folder / "cohort.json", describe_cohort(prepared, settings.data.source))
    write_text(path, prepared.identity())
    write_json(folder.folder / "spec.json", prepared.spec.to_dict())
    if prepared.tokenizer and Path(prepared.tokenizer).is_dir():
        copy_folder(Path(prepared.tokenizer), folder.folder / "tokenizer")
    traced = {"source": type(settings.data.source).__name__, "events": prepared.events.name}
    traced |= {"data": prepared.identity(), "config": digest(numbers_only(settings.resolved()))}
    action = "train resumed" if resumes else "train started"
    trail.enter(folder.folder.parent, action, {"run": folder.folder.name} | traced, create=True)


def fit_all(settings: Settings, plan: Plan, folder: RunFolder, cohort: Cohort, tracker: Tracker) -> pd.DataFrame:
    """Fit every model, and write `predictions.parquet`, `calibration.json` and the facts for the manifest.

    Args:
        settings: the configuration of the experiment.
        plan: the models to fit.
        folder: the run's folder, which `begin` has made.
        cohort: the cohort, with its prepared data.
        tracker: the tracker, such as Weights & Biases, that receives the learning curves. The run's folder has them
            too.

    Returns:
        The PREDICTIONS table of the tuning and held-out samples.
    """
    prepared, seed, method = cohort.prepared, settings.seeds[0], settings.calibrate
    with folder.timed("baselines"):
        parts = fit_baselines(
            plan.baselines, prepared, folder.folder, seed, settings.boosting, settings.baseline_params, settings.risks
        )
    deep, parameters = _fit_deep(settings, plan.training, folder, cohort, tracker)
    parts += deep
    if cohort.task.simulated:
        rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
        parts += true_risk(prepared, rows, seed, method)
    parts += fit_combined(settings.combine.models, plan.members, prepared, parts, folder.folder, seed, method)
    predictions = write_predictions(parts, folder.folder / "predictions.parquet")
    write_calibrators(predictions, folder.folder / "calibration.json", method)
    write_json(folder.folder / FACTS, _facts(settings, folder, cohort, predictions) | {"parameters": parameters})
    return predictions


def probe(settings: Settings, plan: Plan, folder: RunFolder, cohort: Cohort, predictions: pd.DataFrame) -> None:
    """Probe the fitted models for leaks, unless `audit` is off, and write `leak_audit.json`.

    Args:
        settings: the configuration of the experiment.
        plan: the models that were fitted.
        folder: the run's folder.
        cohort: the cohort, with its prepared data.
        predictions: the PREDICTIONS table of the run.
    """
    if not settings.audit:
        (folder.folder / FILE).unlink(missing_ok=True)  # of a process that was killed, and ran with the audit
        return
    make, trainer = plan.training.make, plan.training.trainer
    with folder.timed("audit"):
        audit(Audited(folder.folder, cohort, make, trainer, settings.seeds[0], predictions))


def _fit_deep(
    settings: Settings, training: Training, folder: RunFolder, cohort: Cohort, tracker: Tracker
) -> tuple[list[pd.DataFrame], dict[str, int]]:
    """Fit every deep model with every seed. Return the PREDICTIONS rows of each fit, and the parameters per model."""
    prepared = cohort.prepared
    imbalance = settings.optim.imbalance
    module = ClinicalDataModule(prepared, settings.data.batch, balanced=imbalance == "balanced")
    specs = variants(prepared.spec)
    two_stages = training.optim.stages == 2
    parts, parameters = [], {}
    for seed in settings.seeds:
        start: dict[str, LitNetwork] = {}  # the models that `fused` starts from; empty if there is one stage
        for name in sorted(specs, key=lambda name: name == "fused") if two_stages else specs:
            with folder.timed(name):
                one = Fit(folder.folder, name, seed)
                begin_from = start if name == "fused" else None
                fitted = fit(training, module, specs[name], one, tracker.curves(one.stem), begin_from)
                write_encoders(folder.folder, fitted.network)
                rows, prob = predict(fitted, module.predict_dataloader(), training.trainer)
            if imbalance != "none":
                prob = to_risks(one.stem, prepared, rows, prob, folder.folder / "models")
            outputs = prepared.spec.outputs
            parts.append(prediction_rows(prepared.samples, outputs, name, seed, rows, prob, settings.calibrate))
            parameters[name] = sum(weight.numel() for weight in fitted.network.parameters())
            if two_stages:
                start[name] = fitted
        Fit(folder.folder, "", seed).pretrained_notes.unlink(missing_ok=True)
    return parts, parameters


def _facts(settings: Settings, folder: RunFolder, cohort: Cohort, predictions: pd.DataFrame) -> dict[str, object]:
    """Return the facts of data, task and models for the manifest. Enter the run in the ledger of held-out samples."""
    prepared, outputs, task = cohort.prepared, cohort.result.outputs, cohort.task
    config = settings.resolved()
    names = [output.name for output in outputs]
    own = ledger.held_out(folder.folder, config, prepared.events.name, task.name, prepared.samples, names)
    ledger.enter(folder.folder.parent, own)
    return prepared.facts | {
        "task": task.name,
        "task_info": vars(task.info),
        "events": prepared.events.name,
        "source": type(settings.data.source).__name__,
        "outputs": [output.to_dict() for output in outputs],
        "models": [info.to_dict() for info in model_infos(predictions["model"])],
        "choices": ledger.choices(config),
        "calibrate": settings.calibrate,
        "held_out": own,
        "wall_s": folder.wall_s,
    }
