"""Writes the results of a study: `best.yaml` (with the origin of its values), `trials.csv` and `study.json`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from ehrdl import __version__
from ehrdl.engine.files import write_json, write_text
from ehrdl.options.search import TuneOptions, with_values
from ehrdl.runs.folder import git_hash
from ehrdl.tune.score import SHOWN
from ehrdl.tune.study import Trials, reason

BEST = "best.yaml"


def write(folder: Path, config: dict[str, Any], trials: Trials, model: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the results of a study so far. Each file is written whole or not at all.

    Args:
        folder: the study's folder.
        config: the resolved configuration with which the study was started.
        trials: the study's trials.
        model: the name of the tuned model.
        facts: the facts about the data: `events`, and `held_out`, a hash of the held-out subjects.

    Returns:
        The record of how the best values were chosen, in the form of `tune.chosen`; empty if no trial is complete.
    """
    _write_trials(folder / "trials.csv", trials)
    chosen = _chosen(config, trials, model, facts)
    write_json(folder / "study.json", {"model": model, "importance": trials.importance(), "chosen": chosen})
    if chosen:
        _write_best(folder, config, chosen)
    return chosen


def _chosen(config: dict[str, Any], trials: Trials, model: str, facts: dict[str, Any]) -> dict[str, Any]:
    complete, options = trials.complete(), trials.options
    if not complete:
        return {}
    states = Counter(trial.state for trial in trials.done())
    return {
        "model": model,
        "values": trials.values(complete[0]),
        "metric": options.metric,
        "value": float(complete[0].value or 0.0),
        "scored_on": f"{options.folds} folds of train and tuning" if options.folds else "tuning",
        "seeds": options.seeds,
        "trial": complete[0].number,
        "n_trials": len(trials.done()),
        "n_complete": states[TrialState.COMPLETE],
        "n_pruned": states[TrialState.PRUNED],
        "n_failed": states[TrialState.FAIL],
        "pruner": options.pruner,
        "seed": options.seed,
        "space": {key: dict(config["tune"]["space"][key]) for key in trials.space},  # copied: YAML marks shared objects
        **facts,
        "ehrdl": __version__,
        "git": git_hash(),
    }


def _write_trials(path: Path, trials: Trials) -> None:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["trial", "state", trials.options.metric, "seconds", *trials.space, "reason"])
    for trial in trials.done():
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        value = "" if trial.value is None or trial.state != TrialState.COMPLETE else repr(trial.value)
        values = trials.values(trial)
        table.writerow([trial.number, trial.state.name.lower(), value, seconds, *values.values(), reason(trial)])
    write_text(path, file.getvalue())


def _write_best(folder: Path, config: dict[str, Any], chosen: dict[str, Any]) -> None:
    best = with_values(config, chosen["values"])
    best["run"] = {"name": f"{config['run']['name'].removesuffix('-tuned')}-tuned", "root": config["run"]["root"]}
    before = [one for one in config["tune"]["chosen"] if one.get("model") != chosen["model"]]
    best["tune"] = config["tune"] | {"chosen": [*before, chosen]}
    counts = f"{chosen['n_complete']} complete, {chosen['n_pruned']} pruned, {chosen['n_failed']} failed"
    what = f"{config['run']['name']}, with values for {chosen['model']} by `ehrdl tune`: trial {chosen['trial']}"
    scored = f"{SHOWN[chosen['metric']]} {chosen['value']:.4f} on {chosen['scored_on']}"
    header = [
        f"# What:     {what} of {chosen['n_trials']} ({counts}),",
        f"#           the best by {scored}; no held-out sample was read.",
        f"# Command:  python train.py --config {folder / BEST}",
    ]
    text = yaml.safe_dump(best, sort_keys=False, allow_unicode=True)
    write_text(folder / BEST, "\n".join(header) + "\n" + text)


def line(trial: FrozenTrial, trials: Trials) -> str:
    """Describe an ended trial in one line: its number, how it ended, the study's best score so far, and its values.

    Args:
        trial: the trial.
        trials: all trials of the study.
    """
    options = trials.options
    ends = {
        TrialState.COMPLETE: f"{SHOWN[options.metric]} {trial.value or 0.0:.4f}",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: f"failed ({reason(trial)[:200]})",
    }
    complete = trials.complete()
    best = f", best {complete[0].value or 0.0:.4f} (trial {complete[0].number})" if complete else ""
    end = f"{ends[trial.state]}{best}   {settings(trial, trials)}"
    return f"trial {trial.number}, {len(trials.done())} of {options.n_trials}: {end}"


def settings(trial: FrozenTrial, trials: Trials) -> str:
    """Describe the values of a trial in one line, such as `lr=0.001`. Each key is shortened as far as it stays unique.

    Args:
        trial: the trial.
        trials: all trials of the study.
    """
    return "  ".join(f"{_tail(key, trials.space)}={_short(value)}" for key, value in trials.values(trial).items())


def _tail(key: str, keys: Iterable[str]) -> str:
    """Return the shortest ending of a key, in whole names, that no other key shares.

    >>> _tail("optim.lr", ["optim.lr", "note.dropout"]), _tail("series.dropout", ["series.dropout", "note.dropout"])
    ('lr', 'series.dropout')
    """
    names = key.split(".")
    tails = (".".join(names[-n:]) for n in range(1, len(names)))
    return next((tail for tail in tails if sum(f".{one}".endswith(f".{tail}") for one in keys) == 1), key)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def folder_name(config: dict[str, Any], options: TuneOptions, baseline: str | None) -> str:
    """Return the name of a study's folder. Unless `options` sets a name, each tuned model has a folder of its own.

    Args:
        config: the resolved configuration.
        options: the options of the search.
        baseline: the name of the tuned baseline; None = the deep model.
    """
    return options.name or f"{config['run']['name']}-tune{f'-{baseline}' if baseline else ''}"
