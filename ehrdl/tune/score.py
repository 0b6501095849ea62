"""Scores a trial by one number on the tuning samples, and prunes it by the same number after each epoch."""

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
    """Tell whether a higher value of a metric is better."""
    return metric != "log_loss"


def check_metric(metric: str, outputs: Sequence[OutputSpec]) -> None:
    """Refuse a metric that these outputs do not have.

    Raises:
        ConfigError: the metric is log loss, and an output is a regression output.
    """
    for output in outputs:
        if metric == "log_loss" and output.kind == REGRESSION:
            raise ConfigError(f"tune.metric: log_loss, but {output.name} is a number; use auprc, which takes its R2")


def score(label: np.ndarray, predicted: np.ndarray, outputs: Sequence[OutputSpec], metric: str) -> float:
    """Return the mean of a metric over the outputs (R2 for a regression output), on samples with known labels.

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
    """Return the same score from the values that `LitNetwork` logs after an epoch."""
    if metric == "log_loss":
        return float(values["tuning/loss"])
    kinds = [("r2" if output.kind == REGRESSION else metric, output.name) for output in outputs]
    return float(np.mean([float(values[f"tuning/{kind}_{name}"]) for kind, name in kinds]))


class Watch(Callback):
    """Reports the tuning metric to a study after each epoch, and ends the fit of an unpromising trial.

    A trial with several fits (seeds, folds) is judged by the mean of the finished fits and the running fit.

    Args:
        report: a function of the value and the step; it returns whether the trial is to end.
        outputs: the data's outputs.
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
        """Report an epoch, except the last one of a fit, which is scored by its predictions."""
        if trainer.sanity_checking or trainer.current_epoch + 1 >= self.epochs:
            return
        now = logged(trainer.callback_metrics, self.outputs, self.metric)
        step = len(self.before) * self.epochs + trainer.current_epoch
        if self.report(float(np.mean([*self.before, now])), step):
            raise Pruned


class Pruned(Exception):
    """A trial is not worth continuing."""
