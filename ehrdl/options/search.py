"""The `tune` part of a configuration: which values `ehrdl tune` tries, and how it chooses. It does not import torch."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, Literal

from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, Count, FolderName, Options, Positive, Seed

Metric = Literal["auprc", "auroc", "log_loss"]
Pruner = Literal["median", "hyperband", "none"]
Number = int | float
_KEYS = ("low", "high", "log", "step", "choices")
#: Keys that define the question and its patients. A search over them would change the question or pick a lucky draw.
FIXED = ("run", "seeds", "task", "data.source", "data.split", "data.prepare", "baselines", "logger", "tune")
#: Keys of a configuration that hold the parameters of baselines, by the baseline's name.
BASELINE_KEYS = ("baseline_params",)


@dataclass(frozen=True)
class Choice:
    """A part of the search space: a list of values of any type, one of which is chosen."""

    choices: tuple[Any, ...]

    def corners(self) -> list[Any]:
        """Return all choices, which are checked before the search begins."""
        return list(self.choices)


@dataclass(frozen=True)
class Range:
    """A part of the search space: a number from `low` to `high`, both included.

    It is a whole number if both ends and the step are whole.

    Attributes:
        low: the smallest value.
        high: the largest value.
        log: whether to search uniformly in the logarithm.
        step: the distance between two values, starting at `low`; None = any value.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @property
    def whole(self) -> bool:
        """Whether the range has whole numbers only."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def corners(self) -> list[Number]:
        """Return both ends, which are checked before the search begins. If they are valid, all values between are."""
        return [self.low, self.high]


@dataclass(frozen=True)
class TuneOptions(Options, key="tune"):
    """The options of `ehrdl tune`: which values it tries, and how it chooses the best.

    Attributes:
        space: the search space. Each key of a configuration, such as `optim.lr`, has its `low` and `high`, or its
            `choices`. A range can also have `log: true` or a `step`. A number in a key is an index into a list, from 0.
            Keys under `baseline_params.NAME` are searched with `--baseline NAME`.
        n_trials: total number of trials in the study, including trials of earlier calls of `ehrdl tune`.
        timeout_minutes: time limit of one call [min], after which no further trial begins; null = no limit.
        metric: the metric on the tuning samples that selects the best trial, as a mean over outputs. A regression
            output is scored by R2 instead, and does not allow `log_loss`.
        pruner: the rule that stops bad trials early. `median` stops a trial that is worse than the median of earlier
            trials at the same epoch. `hyperband` follows the Hyperband rule. `none` stops no trial. If
            `trainer.max_steps` or `max_time` alone ends a fit, trials are compared after each fit, not each epoch.
        folds: number of folds for cross-validation. null = no folds: models are fitted on the training split and scored
            on the tuning split. k = the subjects of both splits are divided into k folds, and each fold is scored by
            models fitted on the other folds. This selects with less noise and takes k times as long.
        seeds: number of fits per trial (and fold), with seeds 0, 1, …. The score of a trial is the mean over its fits.
        seed: the random seed of the search.
        name: the name of the study's folder under `run.root`; null = the run's name with `-tune`.
        chosen: the record of how values of this configuration were chosen, one mapping per study. `ehrdl tune` writes
            the record, and `ehrdl train` copies it into the run's manifest.
    """

    space: dict[str, Any] = field(default_factory=dict)
    n_trials: Count = 30
    timeout_minutes: Positive | None = None
    metric: Metric = "auprc"
    pruner: Pruner = "median"
    folds: Annotated[int, Bound("[2, inf)", "null scores the tuning split")] | None = None
    seeds: Count = 1
    seed: Seed = 0
    name: Annotated[str, FolderName()] | None = None
    chosen: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse an invalid option or search space. The error names the key."""
        super().__post_init__()
        for key, value in self.space.items():
            _distribution(key, value)

    def searched(self, baseline: str | None) -> dict[str, Choice | Range]:
        """Return the keys of the search space that belong to one model, each with its values.

        Args:
            baseline: the name of a baseline; None = the deep model.

        Raises:
            ConfigError: no key belongs to the model, a key may not be searched, or the values of a key are invalid.
        """
        space = {key: _distribution(key, value) for key, value in self.space.items()}
        _check_free(space)
        of_baseline = baseline is not None
        own = tuple(f"{above}.{baseline}." if of_baseline else f"{above}." for above in BASELINE_KEYS)
        space = {key: value for key, value in space.items() if key.startswith(own) == of_baseline}
        if not space:
            wanted = f"keys as {own[0]}…" if baseline else "keys such as optim.lr: {low: 1e-4, high: 1e-2, log: true}"
            raise ConfigError(f"tune.space: has nothing to search for {baseline or 'the deep model'}; give it {wanted}")
        if self.pruner != "none" and "trainer.max_epochs" in space:
            raise ConfigError(
                f"tune.pruner: {self.pruner} compares trials epoch by epoch, but trainer.max_epochs in tune.space "
                "makes their schedules unequal; set tune.pruner to none, or leave that key out"
            )
        return space


def _check_free(keys: Iterable[str]) -> None:
    """Refuse a key that defines the question, and any key below it."""
    for key, fixed in product(keys, FIXED):
        if f"{key}.".startswith(f"{fixed}."):
            raise ConfigError(f"tune.space: {key}: {fixed} decides the question that is asked, so it is fixed")


def with_values(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a resolved configuration with new values of some keys.

    Args:
        config: the resolved configuration.
        values: the new values by dotted key, such as `optim.lr`. A whole number in a key is an index into a list.

    Raises:
        ConfigError: a key does not exist. Keys below `trainer`, and parameters of baselines, need not exist yet.
    """
    found = copy.deepcopy(config)
    for key, value in values.items():
        names = key.split(".")
        open_ended = names[0] in ("trainer", *BASELINE_KEYS)
        inner: Any = found
        for i, name in enumerate(names):
            place: str | int = name
            if isinstance(inner, list):
                place = _place(key, names[: i + 1], len(inner))
            elif isinstance(inner, dict) and (name in inner or open_ended):
                inner.setdefault(name, {})
            else:
                beside = f"; beside it are {', '.join(map(str, inner))}" if isinstance(inner, dict) else ""
                raise ConfigError(f"tune.space: {key}: there is no {'.'.join(names[: i + 1])}{beside}")
            if i + 1 == len(names):
                inner[place] = copy.deepcopy(value)
            else:
                inner = inner[place]
    return found


def _place(key: str, names: list[str], n: int) -> int:
    """Read the last of a key's names as an index, from 0, into a list of n items."""
    *above, name = names
    if not re.fullmatch(r"\d+", name, re.ASCII) or int(name) >= n:
        places = f"from 0 to {n - 1}" if n else "but it is empty"
        raise ConfigError(
            f"tune.space: {key}: {'.'.join(above)} is a list, so {name!r} must be a place in it, {places}"
        )
    return int(name)


def _distribution(key: str, given: Any) -> Choice | Range:
    """Return the distribution that an entry of the space defines."""
    where = f"tune.space: {key}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected low and high, or choices, got {given!r}")
    for name in given:
        if name not in _KEYS:
            raise ConfigError(f"{where}.{name}: there is no such key. Allowed: {', '.join(_KEYS)}")
    return _choice(where, given) if "choices" in given else _range(where, given)


def _choice(where: str, given: Mapping[str, Any]) -> Choice:
    """Return the values to choose from. No other key may accompany `choices`."""
    values = given["choices"]
    if len(given) > 1:
        raise ConfigError(f"{where}: choices do not go with {', '.join(sorted(given.keys() - {'choices'}))}")
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}.choices: expected a list of values, got {values!r}")
    return Choice(tuple(values))


def _range(where: str, given: Mapping[str, Any]) -> Range:
    """Return the range of numbers from low to high."""
    for name in ("low", "high"):
        if name not in given:
            raise ConfigError(f"{where}.{name}: missing; give low and high, or choices")
    low, high = (_number(f"{where}.{name}", given[name]) for name in ("low", "high"))
    step = _number(f"{where}.step", given["step"]) if given.get("step") is not None else None
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log: expected true or false, got {log!r}")
    found = Range(low, high, log, step)
    _check_range(where, found)
    return found


def _check_range(where: str, found: Range) -> None:
    """Refuse a range that is empty, or that cannot be searched in the requested way."""
    low, high, step = found.low, found.high, found.step
    if not low < high:
        raise ConfigError(f"{where}: low {low} is not below high {high}")
    if found.log and (low <= 0 or step is not None):
        raise ConfigError(f"{where}.log: needs a low above 0 and no step")
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(f"{where}.step: {step} is not above 0 and at most high - low")


def _number(where: str, value: Any) -> Number:
    """Return the value as a number. YAML reads 1e-4 as text."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise ConfigError(f"{where}: expected a number, got {value!r}")
    return number
