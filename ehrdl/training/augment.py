"""Augmentation of a training batch's series: Batch -> Batch; observations hidden, values blurred, times moved back.

It is drawn anew for each batch, for every network alike, and nothing of it is done at prediction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.options.training import Optim


class Augment(nn.Module):
    """Varies the series of the samples; the same module leaves them alone in evaluation.

    An observation only ever moves into the past or is hidden, so that no sample sees more than it may.

    Args:
        spec: the data.
        optim: its `hide_observations`, `value_noise` and `shift_hours`.
    """

    def __init__(self, spec: DataSpec, optim: Optim) -> None:
        super().__init__()
        self.hide, self.noise, self.shift_hours = optim.hide_observations, optim.value_noise, optim.shift_hours
        self.window_hours = spec.window_hours
        std = [channel.std if channel.kind == "numeric" else 0.0 for channel in spec.channels]
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.std: Tensor

    def forward(self, batch: Batch) -> Batch:
        """The batch with other value, hours and valid (B, N)."""
        asked = self.hide or self.noise or self.shift_hours
        if not (self.training and asked and len(self.std)):  # a network of notes alone has no channels
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
