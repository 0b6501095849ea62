"""One run: prepare -> fit -> predict -> metrics -> report. Its signature is the configuration.

Heavy libraries are imported where a step needs them, so that `--help` and errors in a config come at once. Their types
are named nowhere here, not under TYPE_CHECKING either: the parser resolves this module's annotations and would import
them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ehrdl.batch import DataSpec
from ehrdl.data.config import DataConfig
from ehrdl.engine.cache import use_cache
from ehrdl.engine.files import digest, write_json, write_text
from ehrdl.engine.messages import progress, say, staged
from ehrdl.errors import ConfigError, EhrdlError, SchemaError
from ehrdl.events.source import Source
from ehrdl.models.base import Network
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import Boosting, Combine, LoggerOptions, Optim, ReportOptions, RunOptions
from ehrdl.quality import tell
from ehrdl.recorded import describe
from ehrdl.schema import TaskResult
from ehrdl.tasks.common.base import Task

#: Until a run is finished: which data it was begun on.
_BEGUN = ".data"
#: The clinical scores are left out, with a line, where the task is not theirs.
BASELINES = [
    "prevalence",
    "logistic_regression",
    "random_forest",
    "gradient_boosting",
    "bag_of_words",
    "tabular_and_words",
    "lace",
    "hospital",
    "lace_retrospective",
    "hospital_retrospective",
]


def run(
    run: RunOptions,
    data: DataConfig,
    task: Task,
    model: Callable[[DataSpec], Network],
    seeds: list[int] = [0],  # noqa: B006 - never changed, and a list is what YAML gives
    optim: Optim = Optim(),  # noqa: B008 - frozen
    trainer: dict[str, Any] = {},  # noqa: B006 - never changed
    baselines: list[str] = BASELINES,
    boosting: Boosting = Boosting(),  # noqa: B008 - frozen
    combine: Combine = Combine(),  # noqa: B008 - frozen
    logger: LoggerOptions = LoggerOptions(),  # noqa: B008 - frozen
    baseline_params: dict[str, dict[str, Any]] = {},  # noqa: B006 - never changed
    tune: TuneOptions = TuneOptions(),  # noqa: B008 - frozen
    report: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    config: dict[str, Any] | None = None,
) -> Path:
    """Train and compare models on one task, from a hospital's tables to a report.

    Args:
        run: where the results go.
        data: where the data come from and how they become batches.
        task: what is predicted.
        model: the network; fitted on all modalities (`fused`) and on each alone (`notes_only`, `series_only`).
        seeds: one fit of the deep models a seed; baselines are fitted once, with the first.
        optim: how the deep models are optimised.
        trainer: arguments of pytorch_lightning.Trainer (accelerator, devices, max_epochs, precision, strategy, …).
        baselines: classical models and clinical scores on the same samples; `…_retrospective` reads the codes of the
            stay itself and is not deployable. `lightgbm` and `xgboost` (extra `boost`) read richer features.
        boosting: how `lightgbm` and `xgboost` are tuned.
        combine: models made of these: an average of deep and boosted ones over all seeds, and a stack.
        logger: Weights & Biases, beside the curves in the run folder.
        baseline_params: parameters of baselines, by the baseline's name, as `gradient_boosting: {max_leaf_nodes: 7}`;
            such a one is fitted once, with these, instead of chosen among its own candidates.
        tune: what `ehrdl tune` searches; a run takes from it only how its values were chosen, for the manifest.
        report: what the report shows of small groups.
        config: the resolved configuration, for the run folder; by default this call's own arguments, objects as
            `class_path` and `init_args` (`ehrdl.recorded`).

    Returns:
        The run folder, with `report.html`.

    Raises:
        EhrdlError: one line that says what is wrong with the config or the data; nothing is left behind.
    """
    from ehrdl.processes.team import Follower
    from ehrdl.processes.together import together
    from ehrdl.runs.folder import Run, holding

    _check_seeds(seeds)
    if config is None:
        config = describe(
            {
                "run": run,
                "data": data,
                "task": task,
                "model": model,
                "seeds": seeds,
                "optim": optim,
                "trainer": trainer,
                "baselines": baselines,
                "boosting": boosting,
                "combine": combine,
                "logger": logger,
                "baseline_params": baseline_params,
                "tune": tune,
                "report": report,
            }
        )
    folder = Run(run, config)
    with together(trainer, str(folder.folder), digest(config)) as team:
        if isinstance(team, Follower):
            from ehrdl.training.follow import follow

            follow(team, lambda: _prepare_to_follow(data, task), model, data.batch, optim, trainer)
            return folder.folder
        lock = holding(folder.folder, "run.root", "another process is making this run")
        with nullcontext() if folder.finished else lock:
            _lead(
                folder,
                data,
                task,
                model,
                seeds,
                optim,
                trainer,
                baselines,
                boosting,
                combine,
                logger,
                baseline_params,
                report,
            )
    return folder.folder


def _lead(
    folder: Any,
    data: DataConfig,
    task: Task,
    model: Callable[[DataSpec], Network],
    seeds: list[int],
    optim: Optim,
    trainer: dict[str, Any],
    baselines: list[str],
    boosting: Boosting,
    combine: Combine,
    logger: LoggerOptions,
    baseline_params: dict[str, dict[str, Any]],
    report: ReportOptions,
) -> None:
    """The whole run, in a folder that is this process's alone."""
    folder.check()
    if folder.finished:
        return say(f"{folder.folder}: already finished; --run.overwrite true replaces it")
    prepared, result, trainer, baselines = _prepare(
        folder, data, task, model, trainer, baselines, optim, combine, baseline_params
    )
    from ehrdl.comparators.combine import find_members, fit_combined

    members = find_members(combine, list(variants(prepared.spec)), baselines, seeds)
    _check_same_data(folder, prepared)
    folder.open()
    _write_cohort(folder, prepared, result, data.source)
    from ehrdl.runs.logger import tracking

    with tracking(logger, folder.options.name, folder.folder, folder.config) as tracker:
        parts = _fit(
            folder,
            prepared,
            data,
            model,
            seeds,
            optim,
            trainer,
            baselines,
            boosting,
            tracker,
            task.simulated,
            baseline_params,
        )
        parts += fit_combined(combine.models, members, prepared, parts, folder.folder, seeds[0])
        metrics = _report(folder, prepared, result, task, data, parts, report)
        tracker.metrics(metrics)
        tracker.file("report", "report", folder.folder / "report.html")
        tracker.file("best", "model", _best_checkpoint(folder.folder, parts))


def _prepare_to_follow(data: DataConfig, task: Task) -> tuple[Any, dict[str, DataSpec]]:
    """What another process than the first needs of data that the first has prepared."""
    prepared, _ = prepare(data, task)
    return prepared, variants(prepared.spec)


def _check_seeds(seeds: list[int]) -> None:
    if not seeds:
        raise ConfigError("seeds: [] is empty; give at least one, such as [0]")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seeds: {seed} is not between 0 and 4294967295")
        if seeds.count(seed) > 1:
            raise ConfigError(f"seeds: {seed} stands {seeds.count(seed)} times; the same fit twice says nothing new")


def _prepare(
    folder: Any,
    data: DataConfig,
    task: Task,
    model: Callable[[DataSpec], Network],
    trainer: dict[str, Any],
    baselines: list[str],
    optim: Optim,
    combine: Combine,
    baseline_params: dict[str, dict[str, Any]],
) -> tuple[Any, TaskResult, dict[str, Any], list[str]]:
    """Data, cohort, and checked trainer and baselines, before anything is written to the run folder.

    Cheap checks come first: a wrong trainer argument or a missing table is reported before hours of reading.
    """
    with folder.timed("import"):
        from ehrdl.comparators.check import check_config
        from ehrdl.training.plan import check_fits, check_schedule

        trainer, baselines = check_config(task.name, trainer, baselines, BASELINES, combine, baseline_params)
        check_schedule(trainer, optim)
        data.source.fingerprint(data.prepare.verify)
        from ehrdl.runs.provenance import check_network
        from ehrdl.training.pretrain import check_pretraining

    prepared, result = prepare(data, task, folder.timed)
    check_fits(prepared, data.batch, trainer, optim)
    networks = [try_to_build(model, spec) for spec in variants(prepared.spec).values()]
    if optim.stages == 2:
        check_stages(networks, prepared.spec)
    if optim.pretrain_epochs and "note" in prepared.spec.modalities:
        check_pretraining(networks[0])
    for network in networks:
        check_network(network, data.notes.tokenizer, prepared.samples, data.notes.pretrained_elsewhere)
    return prepared, result, trainer, baselines


def check_stages(networks: list[Network], spec: DataSpec) -> None:
    """Refuse two stages of networks that cannot start from others, and say where there is but one.

    Raises:
        ConfigError: naming the network.
    """
    if not hasattr(networks[0], "start_from"):
        name = type(networks[0]).__name__
        raise ConfigError(f"optim.stages: 2, but {name} cannot start from other models (no `start_from`); set it to 1")
    if len(networks) == 1:
        say(
            f"optim.stages: 2 needs notes and series; these data have {spec.modalities[0]} alone, so there is one stage"
        )


def prepare(
    data: DataConfig, task: Task, timed: Callable[[str], AbstractContextManager[Any]] = staged
) -> tuple[Any, TaskResult]:
    """Everything of a run that comes before fitting: EVENTS, cohort, series store, notes and tokens, all in the cache.

    Args:
        data: where the data come from.
        task: what is predicted.
        timed: called with each step's name, for the time that it takes.

    Returns:
        The `ehrdl.data.prepare.Prepared` data, and the cohort.

    Raises:
        EhrdlError: one line that says what is wrong with the data.
    """
    from ehrdl.data.prepare import find_quality, find_samples, prepare, read_events
    from ehrdl.report.screen import print_flow

    data.check()
    use_cache(data.prepare)
    with timed("read"):
        events = read_events(data)
    with timed("quality"):
        findings = tell(find_quality(data, events), data.prepare.strict)
    with timed("task"):
        result = find_samples(events, task)
    print_flow(result.flow)
    with timed("prepare"):
        prepared = prepare(data, events, result)
    prepared.facts["quality"] = findings
    return prepared, result


def try_to_build(model: Callable[[DataSpec], Network], spec: DataSpec) -> Network:
    """Make the network once, so that a size that cannot be is said before the run folder is opened."""
    try:
        return model(spec.trained())
    except EhrdlError:
        raise
    except Exception as error:  # whatever torch says of an impossible size
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: cannot be built from these init_args ({type(error).__name__}: {reason})") from None


def _check_same_data(folder: Any, prepared: Any) -> None:
    """Refuse to resume a run on other data: files may have changed under the same configuration.

    Raises:
        ConfigError: naming the run's folder.
    """
    path = folder.folder / _BEGUN
    if path.is_file() and not folder.options.overwrite and path.read_text("utf-8") != prepared.identity():
        raise ConfigError(
            f"{folder.folder}: was begun on other data than {prepared.events} now holds; choose another run.name, or "
            "--run.overwrite true"
        )


def _write_cohort(folder: Any, prepared: Any, result: TaskResult, source: Source) -> None:
    from ehrdl.runs.files import copy_folder

    write_json(folder.folder / "flow.json", result.cohort(source.caveats))
    write_text(folder.folder / _BEGUN, prepared.identity())
    write_json(folder.folder / "spec.json", prepared.spec.to_dict())
    if prepared.tokenizer and Path(prepared.tokenizer).is_dir():
        copy_folder(Path(prepared.tokenizer), folder.folder / "tokenizer")


def _fit(
    folder: Any,
    prepared: Any,
    data: DataConfig,
    model: Callable[[DataSpec], Network],
    seeds: list[int],
    optim: Optim,
    trainer: dict[str, Any],
    baselines: list[str],
    boosting: Boosting,
    tracker: Any,
    simulated: bool,
    baseline_params: dict[str, dict[str, Any]],
) -> list[Any]:
    """PREDICTIONS of every baseline and deep model, on tuning and held-out samples."""
    import numpy as np

    from ehrdl.comparators.apply import write_encoders
    from ehrdl.comparators.baseline import fit_baselines
    from ehrdl.data.module import ClinicalDataModule
    from ehrdl.schema import HELD_OUT, TUNING
    from ehrdl.training.fit import fit, pretrained_notes
    from ehrdl.training.predict import predict, prediction_rows, true_risk

    with folder.timed("baselines"):
        parts = fit_baselines(baselines, prepared, folder.folder, seeds[0], boosting, baseline_params)
    module = ClinicalDataModule(prepared, data.batch)
    outputs = prepared.spec.outputs
    specs = variants(prepared.spec)
    for seed in seeds:
        start: dict[str, Any] = {}  # what `fused` starts from; stays empty where there is one stage
        for name in sorted(specs, key=lambda name: name == "fused") if optim.stages == 2 else specs:
            with folder.timed(name):
                curves = tracker.curves(f"{name}-seed{seed}")
                begin = start if name == "fused" else None
                fitted = fit(model, module, specs[name], optim, trainer, folder.folder, name, seed, curves, begin)
                write_encoders(folder.folder, fitted.network)
                rows, prob = predict(fitted, module.predict_dataloader(), trainer)
            parts.append(prediction_rows(prepared.samples, outputs, name, seed, rows, prob))
            if optim.stages == 2:
                start[name] = fitted
        pretrained_notes(folder.folder, seed).unlink(missing_ok=True)
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    return parts + (true_risk(prepared, rows, seeds[0]) if simulated else [])


def variants(spec: DataSpec) -> dict[str, DataSpec]:
    """The deep models that the data allow: with one modality, that one alone."""
    single = {"note": "notes_only", "series": "series_only"}
    if not spec.modalities:
        raise SchemaError("no training sample has a note or a measurement in the window; widen data.window")
    both = {"fused": spec} if len(spec.modalities) > 1 else {}
    return both | {single[name]: spec.only(name) for name in spec.modalities}


def _best_checkpoint(folder: Path, parts: list[Any]) -> Path:
    """The checkpoint of the fit with the highest tuning AUPRC (R2 of a regression output), averaged over outputs."""
    from ehrdl.metrics.discrimination import auprc
    from ehrdl.metrics.regression import r2
    from ehrdl.schema import TUNING

    scores = {}
    for part in parts:
        path = folder / "checkpoints" / f"{part.model.iloc[0]}-seed{part.seed.iloc[0]}.ckpt"
        if path.is_file():
            known = part[(part.split == TUNING) & part.label.notna()]
            by_output = [
                float(auprc(rows.label, rows.prob) if rows.value.isna().all() else r2(rows.label, rows.value))
                for _, rows in known.groupby("output")
            ]
            scores[path] = sum(by_output) / len(by_output)
    return max(scores, key=lambda path: scores[path])


def _report(
    folder: Any,
    prepared: Any,
    result: TaskResult,
    task: Task,
    data: DataConfig,
    parts: list[Any],
    report: ReportOptions,
) -> dict[str, Any]:
    """Predictions, metrics (returned), report and, last, the manifest."""
    from ehrdl.metrics.evaluate import evaluate
    from ehrdl.report.html import write_report
    from ehrdl.report.screen import print_metrics
    from ehrdl.report.summary import summarize
    from ehrdl.runs import ledger
    from ehrdl.training.predict import write_calibrators, write_predictions

    names = [output.name for output in result.outputs]
    own = ledger.held_out(folder.folder, folder.config, prepared.events.name, task.name, prepared.samples, names)
    ledger.enter(folder.folder.parent, own)
    predictions = write_predictions(parts, folder.folder / "predictions.parquet")
    write_calibrators(predictions, folder.folder / "calibration.json")
    with folder.timed("metrics"), progress() as bar:
        job = bar.add_task("bootstrap", total=1000)
        units = {output.name: output.unit for output in result.outputs}
        metrics = evaluate(predictions, on_draws=lambda n: bar.advance(job, n), units=units)
    write_json(folder.folder / "metrics.json", metrics)
    facts = prepared.facts | {
        "task": task.name,
        "events": prepared.events.name,
        "source": type(data.source).__name__,
        "outputs": [output.to_dict() for output in result.outputs],
        "warnings": _warnings(metrics, task),
        "choices": ledger.choices(folder.config),
        "held_out": own,
    }
    manifest = folder.manifest(facts)
    summary = summarize(
        predictions, metrics, result.cohort(data.source.caveats), manifest, folder.config, report.min_count
    )
    write_report(summary, folder.folder / "report.html")
    (folder.folder / _BEGUN).unlink(missing_ok=True)
    folder.finish(manifest)
    print_metrics(metrics, folder.folder)
    return metrics


def _warnings(metrics: dict[str, Any], task: Task) -> list[str]:
    """A score that no honest model has reached: say that it is probably a leak."""
    lines = []
    for output, scores in metrics["outputs"].items():
        ceiling = task.ceiling(output)
        if scores["bayes_auroc"] is None and ceiling is not None and scores["prevalence"] is not None:
            for name, values in scores["models"].items():
                value = values["auroc"]["value"]
                if value is not None and value > ceiling:
                    lines.append(
                        f"{output}: the AUROC {value:.3f} of {name} is above {ceiling}, more than any honest "
                        f"model has reached: look for a leak before you believe it"
                    )
    for line in lines:
        say(f"warning: {line}")
    return lines
