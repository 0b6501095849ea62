"""The first step of every series encoder: value, channel, valid (B, N) -> standardised, visible values (B, N).

Letter of this file: H channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError


class Scale(nn.Module):
    """Standardises each observation by its channel's mean and standard deviation, clipped to +-5."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.n_channels = len(spec.channels)
        self.register_buffer("mean", torch.tensor([c.mean for c in spec.channels], dtype=torch.float32))
        self.register_buffer("std", torch.tensor([c.std for c in spec.channels], dtype=torch.float32).clamp(min=1e-6))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, value: Tensor, channel: Tensor) -> Tensor:
        """Return standardised values (B, N)."""
        return ((value - self.mean[channel]) / self.std[channel]).clamp(-5, 5)


class ChannelDropout(nn.Module):
    """Hides whole channels of a sample in training, as if never measured. At prediction all channels are visible.

    A model that must work without some channels depends less on each channel. Dropping single observations would
    hide little, since neighbouring observations have similar values.

    Args:
        name: name of the encoder, for errors.
        n_channels: H, the number of channels.
        share: share of each sample's channels that are hidden; each channel is drawn separately.
    """

    def __init__(self, name: str, n_channels: int, share: float) -> None:
        super().__init__()
        self.n_channels, self.share = n_channels, share

    def forward(self, batch: Batch) -> Batch:
        """Return the batch; in training, fewer of its observations are valid."""
        if not self.training or self.share == 0:
            return batch
        kept = torch.rand(batch.batch_size, self.n_channels, device=batch.valid.device) >= self.share
        valid = batch.valid & kept.gather(1, batch.channel)
        return replace(batch, value=batch.value.masked_fill(~valid, 0.0), valid=valid)


class Observations(nn.Module):
    """The standardised values of a batch, and the batch as an encoder may see it.

    Args:
        name: name of the encoder, for errors.
        spec: the data description.
        channel_dropout: share of channels that `ChannelDropout` hides.

    Attributes:
        numeric, event: indices of the channels of each kind.
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
        """Return standardised values (B, N), 0 at padding, and the batch. In training, some channels are hidden."""
        batch = self.hide(batch)
        return self.scale(batch.value, batch.channel).masked_fill(~batch.valid, 0.0), batch


def indices(spec: DataSpec, kind: str) -> Tensor:
    """Return the indices of the channels of a kind."""
    return torch.tensor([i for i, c in enumerate(spec.channels) if c.kind == kind], dtype=torch.long)


def require_channels(name: str, spec: DataSpec) -> None:
    """Refuse data without a series.

    Raises:
        ConfigError: there is none; the message names the encoder.
    """
    if not spec.channels:
        raise ConfigError(f"{name}: the data have no series channels; leave `series` out of the modalities")


def count_bins(name: str, spec: DataSpec, bin_hours: float) -> int:
    """Return the number of bins in the window.

    Raises:
        ConfigError: the length of a bin does not divide the window.
    """
    n_bins = round(spec.window_hours / bin_hours) if bin_hours > 0 else 0
    if n_bins < 1 or abs(n_bins * bin_hours - spec.window_hours) > 1e-6:
        raise ConfigError(f"{name}: bin_hours {bin_hours:g} does not divide the window of {spec.window_hours:g} h")
    return n_bins
