"""The first step of every series encoder: it standardises the values (B, N) and, in training, hides some channels.

Letters: B samples, N observations, H channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError


class Scale(nn.Module):
    """Standardises each value by the training mean and standard deviation of its channel, and clips it to [-5, 5]."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.n_channels = len(spec.channels)
        self.register_buffer("mean", torch.tensor([c.mean for c in spec.channels], dtype=torch.float32))
        self.register_buffer("std", torch.tensor([c.std for c in spec.channels], dtype=torch.float32).clamp(min=1e-6))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, value: Tensor, channel: Tensor) -> Tensor:
        """Return standardised values (B, N), given the `channel` (B, N) of each."""
        return ((value - self.mean[channel]) / self.std[channel]).clamp(-5, 5)


class ChannelDropout(nn.Module):
    """In training, hides all observations of some channels of each sample. At prediction, nothing is hidden.

    A network that is trained without some channels depends less on each channel. Hiding single observations would hide
    little, since neighbouring observations of a channel have similar values.

    Args:
        name: name of the encoder, for errors.
        n_channels: H, the number of channels.
        share: probability that a channel of a sample is hidden; each channel is drawn separately.
    """

    def __init__(self, name: str, n_channels: int, share: float) -> None:
        super().__init__()
        self.n_channels, self.share = n_channels, share

    def forward(self, batch: Batch) -> Batch:
        """Return the batch. In training, the observations of hidden channels are no longer valid."""
        if not self.training or self.share == 0:
            return batch
        kept = torch.rand(batch.batch_size, self.n_channels, device=batch.valid.device) >= self.share
        valid = batch.valid & kept.gather(1, batch.channel)
        return replace(batch, value=batch.value.masked_fill(~valid, 0.0), valid=valid)


class Observations(nn.Module):
    """Standardises the values of a batch and, in training, hides some channels from the encoder.

    Args:
        name: name of the encoder, for errors.
        spec: the data description.
        channel_dropout: share of a sample's channels that are hidden in training.

    Attributes:
        numeric, event: indices of the numeric channels and of the event channels.
        n_channels: H, the number of channels.
    """

    def __init__(self, name: str, spec: DataSpec, channel_dropout: float = 0.0) -> None:
        super().__init__()
        require_channels(name, spec)
        self.n_channels = len(spec.channels)
        self.scale = Scale(spec)
        self.hide = ChannelDropout(name, self.n_channels, channel_dropout)
        self.register_buffer("numeric", indices(spec, "numeric"), persistent=False)
        self.register_buffer("event", indices(spec, "event"), persistent=False)
        self.numeric: Tensor
        self.event: Tensor

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return standardised values (B, N), 0 at padding, and the batch. In training, both omit hidden channels."""
        batch = self.hide(batch)
        return self.scale(batch.value, batch.channel).masked_fill(~batch.valid, 0.0), batch


def indices(spec: DataSpec, kind: str) -> Tensor:
    """Return the indices of the channels of one kind, `numeric` or `event`."""
    return torch.tensor([i for i, c in enumerate(spec.channels) if c.kind == kind], dtype=torch.long)


def require_channels(name: str, spec: DataSpec) -> None:
    """Check that the data have series channels.

    Raises:
        ConfigError: they have none; the message names the encoder `name`.
    """
    if not spec.channels:
        raise ConfigError(f"{name}: the data have no series channels; leave `series` out of the modalities")


def count_bins(name: str, spec: DataSpec, bin_hours: float) -> int:
    """Return how many time bins of `bin_hours` fit into the window.

    Raises:
        ConfigError: `bin_hours` does not divide the length of the window; the message names the encoder `name`.
    """
    n_bins = round(spec.window_hours / bin_hours) if bin_hours > 0 else 0
    if n_bins < 1 or abs(n_bins * bin_hours - spec.window_hours) > 1e-6:
        raise ConfigError(f"{name}: bin_hours {bin_hours:g} does not divide the window of {spec.window_hours:g} h")
    return n_bins
