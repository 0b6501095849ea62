"""The Lightning callbacks of a fit: averaging or selection of weights, early stopping, checkpoints and progress."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from torch import Tensor

from ehrdl.engine.messages import say
from ehrdl.options.training import Optim
from ehrdl.training.checkpoint import Resume
from ehrdl.training.lit import LitNetwork
from ehrdl.training.progress import EpochLines


def kept_score(shell: pl.Trainer, callbacks: list[Callback], monitor: str) -> float:
    """Return the tuning metric of the weights that a fit keeps.

    If the best epoch is kept, it is the metric of this epoch. If averaged weights are kept, it is their last metric.

    Args:
        shell: the Lightning trainer of the fit.
        callbacks: the callbacks of the fit.
        monitor: the name of the metric.
    """
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            score = float(callback.best_model_score)
            return score if math.isfinite(score) else math.nan
    return float(shell.callback_metrics.get(monitor, torch.tensor(math.nan)))


def _horizon(optim: Optim, steps_an_epoch: int, trainer: dict[str, Any]) -> float:
    """Return the number of steps that the average of the weights looks back.

    A decay of 0.99 looks back 100 steps. Short runs look back less, or the average would include the random start.
    """
    epochs, steps = trainer["max_epochs"] or -1, trainer.get("max_steps", -1)
    ends = [n for n in (epochs * steps_an_epoch, steps) if n > 0]  # empty if only `max_time` ends the run
    return max(2.0, min([1 / (1 - optim.ema_decay), *(n / 10 for n in ends)]))


def _moving_average(share: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function that averages exponentially in place.

    That of torch would copy an encoder of 100 M weights three times per step.
    """

    def average(kept: Tensor, current: Tensor, _: Tensor) -> Tensor:
        return kept.lerp_(current.to(kept.dtype), share)

    return average


def make_callbacks(
    optim: Optim, scratch: Path, steps_an_epoch: int, trainer: dict[str, Any], monitor: str = "tuning/auprc"
) -> list[Callback]:
    """Return the Lightning callbacks of a fit.

    Args:
        optim: the options for averaging or selecting weights, and for stopping early.
        scratch: the folder of checkpoints from which a killed fit resumes.
        steps_an_epoch: number of optimiser steps per epoch.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        monitor: the tuning metric that selects epochs.
    """
    lines = EpochLines(scratch.name.removeprefix("."), score=monitor)
    chosen: list[Callback] = [Resume(scratch), LearningRateMonitor("step"), lines]
    if os.isatty(2) and trainer.get("enable_progress_bar", True):
        chosen.append(TQDMProgressBar(refresh_rate=10))
    if optim.selection == "averaged":
        share = 1 / _horizon(optim, steps_an_epoch, trainer)
        # Buffers are not averaged. An average would change integer buffers, such as channel indices.
        return [*chosen, WeightAveraging(use_buffers=False, avg_fn=_moving_average(share))]
    best = ModelCheckpoint(dirpath=scratch, filename="best", monitor=monitor, mode="max", enable_version_counter=False)
    return [*chosen, best, Patience(monitor, mode="max", patience=optim.patience)]


class Patience(EarlyStopping):
    """Early stopping that skips an epoch whose tuning score is unknown (NaN)."""

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        if not math.isnan(trainer.callback_metrics.get(self.monitor, math.nan)):
            super()._run_early_stopping_check(trainer)


def keep_best(model: LitNetwork, callbacks: list[Callback]) -> None:
    """Load the weights of the epoch with the best tuning score into the model.

    If the fit averages weights instead, the model already has the averaged weights, and nothing is loaded.
    """
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            if callback.best_model_score is None or not math.isfinite(callback.best_model_score):
                say("optim.selection: no epoch has a tuning score to be selected by; the last one's weights are kept")
                continue
            state = torch.load(callback.best_model_path, weights_only=True, map_location="cpu")
            model.load_state_dict(state["state_dict"])
