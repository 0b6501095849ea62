"""`ehrdl tune`: searches the best values of a configuration's keys, and writes the configuration with these values."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from ehrdl.comparators.baseline import FITTED
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import RunOptions
from ehrdl.processes.trainer import check_trainer, n_processes
from ehrdl.runs import trail
from ehrdl.runs.folder import FREE, RunFolder, holding
from ehrdl.runs.ledger import asked_digest, subjects_digest
from ehrdl.training.variants import variants
from ehrdl.tune import record
from ehrdl.tune.score import SHOWN, check_metric
from ehrdl.tune.study import Trials, opened, reason
from ehrdl.tune.trial import Configure, Data, alone, baseline, check_values, deep, epochs_watched

#: Keys that may differ when a study resumes.
_FREE = (*[path for path in FREE if path != ("tune",)], ("tune", "n_trials"), ("tune", "timeout_minutes"))
_DATA = "data.json"


def tune(configure: Configure, options: TuneOptions, name: str | None = None) -> Path:
    """Try values of a configuration's keys, and write a configuration with the values that score best.

    Trials are scored on tuning samples. Held-out samples are blinded before the first trial: they have no labels, and
    no loader finds them.

    Args:
        configure: a function that gets values by key, and returns the configuration with these values, as objects and
            as plain values.
        options: the search space and the options of the search.
        name: the name of the baseline to tune; None = the deep model.

    Returns:
        The folder of the study, with `best.yaml`, `trials.csv`, `study.json` and `study.db`.

    Raises:
        EhrdlError: the search space or the data are wrong, or no trial could be completed. The message gives the reason
            in one line. If the search space or the data are wrong, no files are left behind.
    """
    if name is not None and name not in FITTED:
        raise ConfigError(f"--baseline: {name!r} is not one of {', '.join(FITTED)}")
    objects, config = configure({})
    config["tune"] = asdict(options)
    run = RunOptions(record.folder_name(config, options, name), objects.run.root, objects.run.overwrite)
    study = RunFolder(run, config | {"study": {"baseline": name}}, _FREE)
    with holding(study.folder, "run.root", "another process is tuning this study"):
        return _tuned(study, configure, options, name)


def _tuned(study: RunFolder, configure: Configure, options: TuneOptions, name: str | None) -> Path:
    """Run the whole search, in a folder that only this process uses."""
    space = options.searched(name)
    objects, config = configure({})
    config["tune"] = asdict(options)
    study.check()
    for key, values in space.items():
        for value in values.corners():
            configure({key: value})  # the parser reports values that it does not accept
    data = Data(options)
    prepared, blinded = data.of(objects, config)
    check_metric(options.metric, prepared.spec.outputs)
    for key, values in space.items():
        for value in values.corners():
            check_values(configure({key: value})[0], prepared, name)
    facts = {"events": prepared.events.name, "held_out": subjects_digest(prepared.samples, "held_out")}
    folder = study.folder
    _check_data(folder, facts, study.replaces)
    study.open()
    traced: dict[str, Any] = {"run": folder.name, "source": type(objects.data.source).__name__} | facts
    trail.enter(folder.parent, "tune started", traced, create=True)
    write_json(folder / _DATA, facts)
    # Not one of the facts that a resumed study must match, since earlier versions lack it.
    facts |= {"asked": asked_digest(prepared.samples, [output.name for output in prepared.spec.outputs])}
    epochs = 1 if name else epochs_watched(_one_device(objects.trainer))
    model = name or next(iter(variants(prepared.spec)))
    with opened(folder, space, options, epochs * len(blinded) * options.seeds) as trials:
        _search(folder, trials, configure, data, name, lambda: record.write(folder, config, trials, model, facts))
    traced |= {"files": trail.hashes(folder, [record.BEST, "study.json", "trials.csv"])}
    trail.enter(folder.parent, "tune finished", traced, create=True)
    return folder


def _one_device(trainer: dict[str, Any]) -> dict[str, Any]:
    """Return the checked arguments of a trial's trainer, and report if a run uses more devices."""
    n = n_processes(check_trainer(trainer))
    if n > 1:
        say(
            f"trainer.devices: trials are fitted on one device; the run on {n} takes {n} times as many samples a step "
            f"(data.batch.size)"
        )
    return alone(trainer)


def _check_data(folder: Path, facts: dict[str, Any], overwrite: bool) -> None:
    """Refuse to resume a study on other data, since its trials cannot be compared with new ones."""
    if (folder / _DATA).is_file() and not overwrite and read_json(folder / _DATA) != facts:
        raise ConfigError(f"{folder}: the data have changed since; choose another tune.name, or --run.overwrite true")


def _search(
    folder: Path,
    trials: Trials,
    configure: Configure,
    data: Data,
    name: str | None,
    write: Callable[[], dict[str, Any]],
) -> None:
    """Run trials until there are enough, and write the results after each."""
    options, start = trials.options, time.monotonic()
    if len(trials.done()) >= options.n_trials:
        n = len(trials.done())
        say(f"{folder}: already finished, with {n} trials; --n-trials {n + 10} adds ten")
    while len(trials.done()) < options.n_trials:
        if options.timeout_minutes and time.monotonic() - start > 60 * options.timeout_minutes:
            say(f"tune.timeout_minutes: {options.timeout_minutes:g} are over; the same command resumes")
            break
        trial = trials.next()
        place = folder / "trials" / str(trial.number)
        objective = _objective(trials, configure, data, name, place)
        ended = trials.run(trial, objective)
        shutil.rmtree(folder / "trials", ignore_errors=True)
        write()
        say(record.line(ended, trials))
    _say_result(folder, trials, write())


def _objective(
    trials: Trials, configure: Configure, data: Data, name: str | None, place: Path
) -> Callable[[Trial], float]:
    """Return the function that fits a trial in the folder `place` and scores it."""

    def objective(trial: Trial) -> float:
        def report(value: float, step: int) -> bool:
            if step not in reported:  # a resumed trial has reported some already
                trial.report(value, step)
                reported.add(step)
            return trial.should_prune()

        reported = set(trials.study._storage.get_trial(trial._trial_id).intermediate_values)
        objects, config = configure(trials.values(trial))
        _, blinded = data.of(objects, config)
        if name:
            return baseline(name, objects, blinded, trials.options, report, data.tables)
        return deep(objects, blinded, trials.options, place, report)

    return objective


def _say_result(folder: Path, trials: Trials, chosen: dict[str, Any]) -> None:
    if not chosen:
        failed = [f"{reason(trial)} ({record.settings(trial, trials)})" for trial in trials.done() if reason(trial)]
        why = f"the last said: {failed[-1]}" if failed else "none was run"
        raise ConfigError(f"{folder}: no trial is complete, so there is no best one; {why}")
    importance = trials.importance()
    if importance:
        say("importance: " + ", ".join(f"{key} {share:.0%}" for key, share in importance.items()))
    say(f"best: trial {chosen['trial']}, {SHOWN[chosen['metric']]} {chosen['value']:.4f} on {chosen['scored_on']}")
    say(f"next: ehrdl train --config {folder / record.BEST}")
