"""The learning rate over a fit: a linear warm-up, then half a cosine to zero, updated at each step."""

from __future__ import annotations

import math
from typing import Any

import torch


def warmup_cosine(optimizer: torch.optim.Optimizer, n_steps: int, warmup: float) -> dict[str, Any]:
    """Return the optimiser and its learning-rate schedule, in the form that `configure_optimizers` must return.

    Args:
        optimizer: the optimiser; its learning rates are the highest rates of the schedule.
        n_steps: number of optimiser steps of the whole fit.
        warmup: share of these steps in which the learning rate rises.
    """
    total = max(1, n_steps)
    warm = max(1, round(warmup * total))

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def n_steps(trainer: Any) -> int:
    """Return the number of optimiser steps of a whole fit.

    Lightning's own estimate is used only if the trainer has no datamodule. It would open the training loader too early,
    before a resuming fit has set its position in the data.
    """
    if trainer.datamodule is None:
        return int(trainer.estimated_stepping_batches)
    n_batches = len(trainer.datamodule.train_dataloader())
    limit = trainer.limit_train_batches  # a number or a share of batches
    n_batches = min(n_batches, limit) if isinstance(limit, int) else int(n_batches * limit)
    steps = math.ceil(n_batches / trainer.accumulate_grad_batches)
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    limits += [steps * trainer.max_epochs] if (trainer.max_epochs or 0) > 0 else []
    return int(min(limits, default=steps))
