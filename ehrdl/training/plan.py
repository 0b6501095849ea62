"""Checks, before a network is fitted, that the fit will have training batches and a tuning score.

Lightning would notice a missing batch or score only at the end of an epoch, or at the end of the fit.
"""

from __future__ import annotations

import math
from typing import Any

from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.prepare import Prepared
from ehrdl.errors import ConfigError
from ehrdl.options.training import Optim
from ehrdl.processes.trainer import n_processes

_SCORELESS = "optim.selection: best_tuning selects by a tuning score, and none is taken before the fit ends"


def check_schedule(trainer: dict[str, Any], optim: Optim) -> None:
    """Check the parts of a training schedule that do not depend on the data.

    Args:
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        optim: the options for selecting epochs.

    Raises:
        ConfigError: a value is impossible; the message names its key.
    """
    for unit in ("epochs", "steps"):
        low, high = trainer.get(f"min_{unit}"), trainer.get(f"max_{unit}")
        if low is not None and high not in (None, -1) and low > high:
            raise ConfigError(f"trainer.min_{unit}: {low} is above trainer.max_{unit}, {high}")
    if trainer.get("overfit_batches"):
        raise ConfigError("trainer.overfit_batches: would tune on training samples; use trainer.limit_train_batches")
    if trainer.get("reload_dataloaders_every_n_epochs"):
        raise ConfigError(
            "trainer.reload_dataloaders_every_n_epochs: would repeat the first epoch's order; leave it out"
        )
    every, epochs = trainer.get("check_val_every_n_epoch", 1), trainer.get("max_epochs")
    if optim.selection == "best_tuning" and every and epochs not in (None, -1) and every > epochs:
        raise ConfigError(
            f"{_SCORELESS} (trainer.check_val_every_n_epoch {every}, max_epochs {epochs}); use averaged, or more epochs"
        )


def check_fits(prepared: Prepared, batch: BatchOptions, trainer: dict[str, Any], optim: Optim) -> None:
    """Check the training schedule against the number of batches in the prepared data, by `check_plan`.

    Args:
        prepared: the prepared data.
        batch: the options for making batches of samples.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        optim: the options for selecting epochs.
    """
    loaders = ClinicalDataModule(prepared, batch, balanced=optim.imbalance == "balanced")
    n_train = len(loaders.train_dataloader()) // n_processes(trainer)
    if n_train:  # a later check refuses fewer batches than processes, with advice
        check_plan(trainer, optim, n_train, len(loaders.val_dataloader()))


def check_plan(trainer: dict[str, Any], optim: Optim, n_train: int, n_tuning: int) -> None:
    """Check that a fit has batches left under its limits, and a tuning score if one selects epochs.

    Args:
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        optim: the options for selecting epochs.
        n_train: number of training batches per epoch and process.
        n_tuning: number of tuning batches.

    Raises:
        ConfigError: a value is impossible; the message names its key and how to change it.
    """
    n_batches = _limited(trainer, "limit_train_batches", n_train, "training")
    _limited(trainer, "limit_val_batches", n_tuning, "tuning")
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if isinstance(interval, str | dict):  # an interval of time, which is unknown in batches
        return
    if isinstance(interval, int) and every is not None and interval > n_batches:
        raise ConfigError(
            f"trainer.val_check_interval: {interval} is above the {n_batches} training batches of an epoch, so that no "
            f"tuning score would be taken; lower it, or set trainer.check_val_every_n_epoch to null"
        )
    end = _end(trainer, n_batches)
    if optim.selection == "best_tuning" and end < _first_score(interval, every, n_batches):
        raise ConfigError(
            f"{_SCORELESS}, after {end} batches (an epoch has {n_batches}); raise trainer.max_epochs or max_steps, "
            f"lower check_val_every_n_epoch or val_check_interval, or use averaged"
        )


def _limited(trainer: dict[str, Any], key: str, n: int, what: str) -> int:
    """Return how many of `n` batches a limit leaves."""
    limit = trainer.get(key)
    if limit is None:
        return n
    if isinstance(limit, int):
        return min(limit, n)
    if not 0 < limit <= 1:
        raise ConfigError(f"trainer.{key}: {limit} is no share; give one in (0, 1], or a whole number of batches")
    if int(n * limit) == 0:
        raise ConfigError(
            f"trainer.{key}: {limit} of {n} {what} batches is none; give at least {math.ceil(1000 / n) / 1000}, "
            f"or a whole number of batches"
        )
    return int(n * limit)


def _first_score(interval: float | int | None, every: int | None, n_batches: int) -> int:
    """Return the number of batches before the first tuning score."""
    within = interval if isinstance(interval, int) else max(1, int(n_batches * (1.0 if interval is None else interval)))
    return within if every is None else (every - 1) * n_batches + within


def _end(trainer: dict[str, Any], n_batches: int) -> float:
    """Return the number of batches after which a fit ends, unless time or patience end it earlier."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    end: float = math.inf if epochs in (None, -1) else int(epochs) * n_batches
    if steps == -1:
        return end
    accumulated = trainer.get("accumulate_grad_batches") or 1
    of_epoch = -(-n_batches // accumulated)
    whole, rest = divmod(steps - 1, of_epoch)
    by_steps: float = whole * n_batches + min((rest + 1) * accumulated, n_batches)
    return min(end, by_steps)
