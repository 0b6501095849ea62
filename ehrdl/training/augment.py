"""Augmentation of a training batch's series, Batch -> Batch: hides observations, adds noise and moves times back.

It is drawn anew for each batch, in the same way for every network, and is off at prediction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.options.training import Optim


class Augment(nn.Module):
    """Varies the samples' series in training; in evaluation it leaves them unchanged.

    An observation is only hidden or moved into the past, so no sample sees more than it may.

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
        """Return the batch with changed value, hours and valid (B, N)."""
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
