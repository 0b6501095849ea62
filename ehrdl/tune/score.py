"""Scores the trials of `ehrdl tune` on the tuning samples. After an epoch, a trial with a bad score can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from sklearn.metrics import log_loss

from ehrdl.errors import ConfigError
from ehrdl.metrics.discrimination import auprc, auroc
from ehrdl.metrics.regression import r2
from ehrdl.schema import REGRESSION, OutputSpec

_BINARY: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "auprc": auprc,
    "auroc": auroc,
    "log_loss": lambda label, prob: log_loss(label, prob, labels=[0, 1]),
}
#: The name of a metric in a sentence.
SHOWN = {"auprc": "AUPRC", "auroc": "AUROC", "log_loss": "log loss"}


def rises(metric: str) -> bool:
    """Return whether a higher value of a metric is better."""
    return metric != "log_loss"


def check_metric(metric: str, outputs: Sequence[OutputSpec]) -> None:
    """Check that a metric is defined for all outputs.

    Raises:
        ConfigError: the metric is log loss, and an output is a regression output.
    """
    for output in outputs:
        if metric == "log_loss" and output.kind == REGRESSION:
            raise ConfigError(f"tune.metric: log_loss, but {output.name} is a number; use auprc, which takes its R2")


def score(label: np.ndarray, predicted: np.ndarray, outputs: Sequence[OutputSpec], metric: str) -> float:
    """Return the score of some predictions: the mean of a metric (R2 for a regression output) over the outputs.

    Samples without a label are left out.

    Args:
        label: the labels (n, K), NaN = unknown.
        predicted: the predictions (n, K), probabilities or values.
        outputs: the K outputs.
        metric: the metric: auprc, auroc or log_loss.

    Returns:
        The mean; NaN if a prediction is NaN because the fit diverged.
    """
    if not np.isfinite(predicted).all():
        return float("nan")
    found = []
    for k, output in enumerate(outputs):
        known = ~np.isnan(label[:, k])
        of = r2 if output.kind == REGRESSION else _BINARY[metric]
        found.append(float(of(label[known, k].astype(np.float64), predicted[known, k])))
    return float(np.mean(found))


def logged(values: Mapping[str, Any], outputs: Sequence[OutputSpec], metric: str) -> float:
    """Return the score of the tuning samples after an epoch, from the values that `LitNetwork` has logged.

    Args:
        values: the logged values by name, such as `tuning/loss`.
        outputs: the outputs, whose scores are averaged.
        metric: the metric, as in `score`.
    """
    if metric == "log_loss":
        return float(values["tuning/loss"])
    kinds = [("r2" if output.kind == REGRESSION else metric, output.name) for output in outputs]
    return float(np.mean([float(values[f"tuning/{kind}_{name}"]) for kind, name in kinds]))


class Watch(Callback):
    """Reports the tuning metric to a study after each epoch, and ends the fit of an unpromising trial.

    A trial with several fits (seeds, folds) is judged by the mean of the finished fits and the running fit.

    Args:
        report: a function that gets the trial's score and the number of the epoch (counted over all fits). It returns
            whether the trial is to end.
        outputs: the outputs, whose scores are averaged.
        metric: the study's metric.
        before: the scores of the trial's finished fits.
        epochs: the number of epochs of one fit.
    """

    def __init__(
        self,
        report: Callable[[float, int], bool],
        outputs: Sequence[OutputSpec],
        metric: str,
        before: Sequence[float],
        epochs: int,
    ) -> None:
        self.report, self.outputs, self.metric = report, outputs, metric
        self.before, self.epochs = list(before), epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the trial's score after each epoch but the last of a fit. A finished fit is scored by `score`."""
        if trainer.sanity_checking or trainer.current_epoch + 1 >= self.epochs:
            return
        now = logged(trainer.callback_metrics, self.outputs, self.metric)
        step = len(self.before) * self.epochs + trainer.current_epoch
        if self.report(float(np.mean([*self.before, now])), step):
            raise Pruned


class Pruned(Exception):
    """Ends a trial early, because the pruner of the study judges it unpromising."""
