"""The study behind `ehrdl tune`, with its trials in a SQLite file.

Each trial depends only on the study's seed and the earlier trials. A killed study resumes as if it had not been
interrupted. An unfinished trial keeps its number and values, and its fits resume from their checkpoints.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from ehrdl.errors import EhrdlError, is_disk_full
from ehrdl.options.search import Choice, Range, TuneOptions
from ehrdl.tune.score import Pruned, rises

DATABASE = "study.db"
_NAME, _REASON, _COUNTS = "ehrdl", "reason", "counts"
_PLAIN = (bool, int, float, str, type(None))
#: The number of trials that always run to their end, so that there is something to compare with.
_UNPRUNED = 5


class Trials:
    """The trials of a study.

    Args:
        study: the Optuna study, in a file.
        space: the search space.
        options: the options of the search.
    """

    def __init__(self, study: optuna.Study, space: Mapping[str, Choice | Range], options: TuneOptions) -> None:
        self.study, self.options = study, options
        self.space = dict(space)
        self.distributions = {key: _distribution(value) for key, value in space.items()}

    def done(self) -> list[FrozenTrial]:
        """Return the trials that count towards `n_trials`, by number: complete, pruned, or failed by their values."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished() and _counts(trial)]

    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials, the best score first. Of trials with equal scores, the earlier comes first."""
        sign = -1 if rises(self.options.metric) else 1
        found = [trial for trial in self.done() if trial.state == TrialState.COMPLETE]
        return sorted(found, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))

    def next(self) -> Trial:
        """Return the trial that was unfinished when the study stopped, or a new trial with values for all keys."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.params.keys() == self.distributions.keys():
                return Trial(self.study, frozen._trial_id)
            # Killed between two values. A new trial would draw them in another order.
            self.study._storage.set_trial_user_attr(frozen._trial_id, _COUNTS, False)
            self.study.tell(frozen.number, state=TrialState.FAIL)
        self.study.sampler = self._sampler()
        return self.study.ask(self.distributions)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """Return a sampler seeded by the trial's number, so that a resumed study draws the same values."""
        seed = int(np.random.SeedSequence([self.options.seed, len(self.done())]).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=seed)

    def values(self, trial: Trial | FrozenTrial) -> dict[str, Any]:
        """Return a trial's value of each searched key, as a configuration contains it."""
        return {key: self._value(key, trial.params[key]) for key in self.space}

    def _value(self, key: str, drawn: Any) -> Any:
        space = self.space[key]
        return space.choices[_labels(space).index(drawn)] if isinstance(space, Choice) else drawn

    def run(self, trial: Trial, objective: Callable[[Trial], float]) -> FrozenTrial:
        """Fit and score a trial, and record how it ended: complete, pruned or failed.

        A trial fails if its values cannot be used together, or if its fit crashes or diverges.

        Args:
            trial: the trial.
            objective: a function that fits a trial and returns its score.

        Raises:
            Exception: the disk is full. The trial stays unfinished, since its values are not the cause.
        """
        try:
            value = objective(trial)
        except Pruned:
            return self.study.tell(trial, state=TrialState.PRUNED)
        except EhrdlError as error:
            return self._failed(trial, " ".join(str(error).split()))
        except Exception as error:  # such as out of memory; an unfinished trial would crash every restart
            if is_disk_full(error):
                raise
            return self._failed(trial, _first_line(error))
        if not np.isfinite(value):
            return self._failed(trial, f"the {self.options.metric} is {value}: the fit diverged")
        return self.study.tell(trial, value)

    def _failed(self, trial: Trial, why: str) -> FrozenTrial:
        trial.set_user_attr(_REASON, why)
        return self.study.tell(trial, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return how much each searched key matters for the score (PED-ANOVA, Watanabe 2023).

        The result is empty if fewer than 10 trials are complete, or if only one key is searched.
        """
        if len(self.space) < 2 or len(self.complete()) < 10:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {key: float(value) for key, value in optuna.importance.get_param_importances(self.study).items()}


@contextmanager
def opened(folder: Path, space: Mapping[str, Choice | Range], options: TuneOptions, max_steps: int) -> Iterator[Trials]:
    """Open the study in a folder, and yield its trials. If the folder has no study, make one.

    Args:
        folder: the study's folder, which must exist.
        space: the search space.
        options: the options of the search.
        max_steps: the number of intermediate scores that a trial records if it is not pruned.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / DATABASE
    if not file.is_file():
        part = folder / f".{DATABASE}.part"
        part.unlink(missing_ok=True)
        with _storage(part) as storage:
            direction: Any = "maximize" if rises(options.metric) else "minimize"
            optuna.create_study(storage=storage, study_name=_NAME, direction=direction)
        os.replace(part, file)
    with _storage(file) as storage:
        pruner = _pruner(options, max_steps)
        yield Trials(optuna.load_study(storage=storage, study_name=_NAME, pruner=pruner), space, options)


@contextmanager
def _storage(file: Path) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _pruner(options: TuneOptions, max_steps: int) -> optuna.pruners.BasePruner:
    if options.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=max_steps // 4)
    if options.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(max_steps, 2))
    return optuna.pruners.NopPruner()


def _distribution(space: Choice | Range) -> BaseDistribution:
    if isinstance(space, Choice):
        return CategoricalDistribution(_labels(space))
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=int(space.step or 1))
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _labels(space: Choice) -> list[Any]:
    """Return the value in the database for each choice: the choice itself, or JSON for a mapping or a list."""
    plain = all(isinstance(value, _PLAIN) for value in space.choices)
    return list(space.choices) if plain else [json.dumps(value, sort_keys=True) for value in space.choices]


def _first_line(error: Exception) -> str:
    """Describe an error in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _counts(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(_COUNTS, True))


def reason(trial: FrozenTrial) -> str:
    """Return the reason why a trial failed, in one line; empty if it did not fail."""
    return str(trial.user_attrs.get(_REASON, ""))
