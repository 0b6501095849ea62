"""Augmentation of the series in a training batch: hide observations, add noise to values, and move times back.

Each batch gets new random changes. They are the same kinds of changes for every network. At prediction there are none.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.options.training import Optim


class Augment(nn.Module):
    """Changes the series of samples at random in training, and leaves them unchanged in evaluation.

    Observations are hidden or moved into the past, never forward, so none from after the prediction time is revealed.

    Args:
        spec: the data description.
        optim: the options `hide_observations`, `value_noise` and `shift_hours`.
    """

    def __init__(self, spec: DataSpec, optim: Optim) -> None:
        super().__init__()
        self.hide, self.noise, self.shift_hours = optim.hide_observations, optim.value_noise, optim.shift_hours
        self.window_hours = spec.window_hours
        std = [channel.std if channel.kind == "numeric" else 0.0 for channel in spec.channels]
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.std: Tensor

    def forward(self, batch: Batch) -> Batch:
        """Return the batch with changed `value`, `hours` and `valid`, each (samples, observations)."""
        asked = self.hide or self.noise or self.shift_hours
        if not (self.training and asked and len(self.std)):  # a network that reads only notes has no channels
            return batch
        value, hours, valid = batch.value, batch.hours, batch.valid
        if self.hide:
            valid = valid & (torch.rand(valid.shape, device=valid.device) >= self.hide)
        if self.noise:
            value = value + self.noise * self.std[batch.channel] * torch.randn_like(value)
        if self.shift_hours:
            hours = hours - self.shift_hours * torch.rand(len(hours), 1, device=hours.device)
            valid = valid & (hours > -self.window_hours)
        return replace(batch, value=value.masked_fill(~valid, 0.0), hours=hours, valid=valid)
