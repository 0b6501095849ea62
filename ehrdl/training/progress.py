"""Progress of a fit, one line per epoch, if standard error is not a terminal. A terminal shows a bar instead."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from ehrdl.engine.messages import has_terminal, say

#: Up to this many epochs, each has a line. With more epochs, lines are at least this many seconds apart.
_ALL, _APART_S = 20, 10.0


class EpochLines(Callback):
    """Prints one line per epoch to standard error: loss, tuning score, samples per second and the time left.

    Args:
        stem: the name of the fit, which begins the line.
        loss: the name of the training loss among the logged metrics.
        score: the name of the tuning score among the logged metrics; empty = no score is printed.
    """

    def __init__(self, stem: str, loss: str = "train/loss", score: str = "") -> None:
        self.stem, self.loss, self.score = stem, loss, score
        self.n_samples = self.n_batches = 0
        self.began = self.said = -math.inf

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the count of samples for the epoch."""
        self.n_samples = self.n_batches = 0
        self.began = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples and batches of the epoch."""
        self.n_samples += batch.batch_size if hasattr(batch, "batch_size") else len(batch[0])
        self.n_batches += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line of the epoch. In a fit of many epochs, skip it if the last line is less than 10 s old."""
        now, epoch, epochs = time.monotonic(), trainer.current_epoch + 1, trainer.max_epochs or -1
        few = 0 < epochs <= _ALL
        if has_terminal() or not (few or epoch in (1, epochs) or now - self.said >= _APART_S):
            return
        self.said, seconds = now, max(now - self.began, 1e-9)
        parts = [f"{self.stem}: epoch {epoch}{f' of {epochs}' if epochs > 0 else ''}"]
        for name, metric in (("loss", self.loss), (self.score.replace("/", " ").replace("auprc", "AUPRC"), self.score)):
            if metric in trainer.callback_metrics:
                parts.append(f"{name} {float(trainer.callback_metrics[metric]):.3f}")
        parts.append(f"{self.n_samples * trainer.world_size / seconds:,.0f} samples/s")
        left = self._steps_left(trainer)
        if left > 0 and self.n_batches and math.isfinite(left):
            parts.append(f"{_duration(left * seconds / self.n_batches)} left")
        say(", ".join(parts))

    def _steps_left(self, trainer: pl.Trainer) -> float:
        """Return the number of batches left to train on, unless time or patience end the fit earlier."""
        if trainer.should_stop:
            return 0
        total = trainer.estimated_stepping_batches
        return (total - trainer.global_step) * trainer.accumulate_grad_batches


def _duration(seconds: float) -> str:
    """Return a duration as text, in a suitable unit.

    >>> _duration(4.2), _duration(150), _duration(9000)
    ('4 s', '2 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
