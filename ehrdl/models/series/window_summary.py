"""Series encoder: value, hours, channel, valid (B, N) -> (B, D), from each channel's summaries of the whole window.

Letters: B samples, N observations, D width of the features, H channels, P parts of the window, F numbers per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder
from ehrdl.models.series.cells import cell_of, extreme, first_position, last_position, spread, total
from ehrdl.models.series.observations import Observations
from ehrdl.options.bounds import Share, Width

NAME = "WindowSummary"
#: Squared days added to the variance of the times, so that two readings minutes apart have almost no slope.
_SLOPE_RIDGE = 0.02
#: Smallest standard deviation used to scale a number, so that numbers that hardly vary stay small.
_LEAST_STD = 0.05
_WHOLE, _PART = 11, 3  # numbers of the whole window, and of each part
_COUNT = 7  # the place of the log count among the numbers of the window


class WindowSummary(nn.Module, Encoder):
    """A layer on summary numbers of every channel, such as means and slopes, over the window and over its parts.

    Gradient boosting reads similar numbers. They are standardised by their running means and variances. Each channel
    has its own weights, so that a slope of sodium can mean something else than a slope of the heart rate. The encoder
    works alone or beside other encoders (in `ConcatEncoder` or `Committee`).

    Args:
        spec: the data description.
        per_channel: number of units per channel; D is this times the number of channels.
        parts: number of equal parts of the window, each of which is also summarised by mean and count.
        dropout: share of units dropped in training.
        channel_dropout: share of a sample's channels whose numbers are replaced by their running means in training.
            Other encoders treat a dropped channel as never measured. Here that would itself be informative.
    """

    def __init__(
        self,
        spec: DataSpec,
        per_channel: Width = 12,
        parts: Width = 4,
        dropout: Share = 0.0,
        channel_dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.observations = Observations(NAME, spec)
        self.width = per_channel * self.observations.n_channels
        self.units = ChannelUnits(NAME, spec, per_channel, parts, channel_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has any observation (B,). If not, its features are 0."""
        present = batch.valid.any(dim=1)
        units, _ = self.units(*self.observations(batch))
        features = self.dropout(nn.functional.gelu(units)).flatten(1)
        return features * present.unsqueeze(1), present


class ChannelUnits(nn.Module):
    """A layer on the standardised summary numbers of every channel, with separate weights per channel: (B, H, units).

    Args:
        name: name of the encoder, for errors.
        spec: the data description.
        units: number of units per channel.
        parts: P, the number of equal parts of the window.
        channel_dropout: share of a sample's channels that are dropped in training, as in `WindowSummary`.
    """

    def __init__(self, name: str, spec: DataSpec, units: int, parts: int, channel_dropout: float) -> None:
        super().__init__()
        self.n_channels, self.parts, self.window_hours = len(spec.channels), parts, spec.window_hours
        self.channel_dropout = channel_dropout
        n_numbers = _WHOLE + _PART * parts
        self.standardise = RunningScale(self.n_channels, n_numbers)
        self.weight = nn.Parameter(torch.randn(self.n_channels, n_numbers, units) / n_numbers**0.5)
        self.bias = nn.Embedding(self.n_channels, units)  # an embedding, so that it does not decay
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, value: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return units (B, H, units), and a mask (B, H, 1) that is 0 for a channel dropped in training, else 1."""
        numbers, known = summaries(value, batch, self.n_channels, self.window_hours, self.parts)
        numbers = self.standardise(numbers, known)
        kept = torch.ones_like(numbers[..., :1])
        if self.training and self.channel_dropout:
            kept = (torch.rand_like(kept) >= self.channel_dropout).to(numbers.dtype)
        return torch.einsum("bhf,hfd->bhd", numbers * kept, self.weight) + self.bias.weight, kept


class RunningScale(nn.Module):
    """Standardises each summary number of each channel and clips it to [-5, 5]. An unknown number becomes 0.

    Mean and variance are taken over all training samples so far in which the number is known, with equal weights. A
    small batch therefore does not change the scale of a rare channel abruptly. Mean and variance have no gradient, and
    are fixed at prediction.
    """

    def __init__(self, n_channels: int, n_numbers: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(n_channels, n_numbers))
        self.register_buffer("mean", torch.zeros(n_channels, n_numbers))
        self.register_buffer("variance", torch.ones(n_channels, n_numbers))
        self.count: Tensor
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, numbers: Tensor, known: Tensor) -> Tensor:
        """Return the standardised `numbers` (B, H, F). `known` (B, H, F) is true where a number is known."""
        if self.training:
            self._learn(numbers.detach(), known)
        std = self.variance.sqrt().clamp(min=_LEAST_STD)
        return ((numbers - self.mean) / std).clamp(-5, 5) * known

    @torch.no_grad()
    def _learn(self, numbers: Tensor, known: Tensor) -> None:
        """Merge the batch's mean and variance into the running ones (Chan, Golub and LeVeque 1983)."""
        n = known.sum(dim=0)
        mean = (numbers * known).sum(dim=0) / n.clamp(min=1)
        variance = (((numbers - mean) * known) ** 2).sum(dim=0) / n.clamp(min=1)
        share = n / (self.count + n).clamp(min=1)  # the share of all samples so far that are in this batch
        gap = mean - self.mean
        joined = (1 - share) * self.variance + share * variance + share * (1 - share) * gap**2
        self.variance.copy_(torch.where(n > 0, joined, self.variance))
        self.mean += share * gap
        self.count += n


def summaries(value: Tensor, batch: Batch, n_channels: int, window_hours: float, parts: int) -> tuple[Tensor, Tensor]:
    """Return F summary numbers of each channel (B, H, F), 0 where unknown, and whether each is known (B, H, F).

    The numbers of the whole window come first: last value, first value, mean, minimum, maximum, standard deviation,
    slope [1/d], log(1 + count), the times of the last and the first observation, and whether there is any observation.
    The times are fractions of the window, counted back from its end. The numbers of each part follow, the oldest part
    first: mean, log(1 + count), and whether there is any observation. Counts, and whether there is any observation, are
    always known.

    Args:
        value: (B, N), standardised values.
        batch: the batch, of which `hours`, `channel` and `valid` are read. Its observations are in the order in which
            they became available.
        n_channels: H, the number of channels.
        window_hours: length of the window [h].
        parts: P, the number of equal parts of the window.
    """
    shape = (batch.batch_size, n_channels)
    whole, any_whole = _whole(value, batch, n_channels, window_hours)
    part = ((batch.hours + window_hours) / (window_hours / parts)).floor().long().clamp(0, parts - 1)
    cell, n_cells = cell_of(batch, batch.channel * parts + part, n_channels * parts), n_channels * parts * shape[0]
    count = total(batch.valid.to(value.dtype), cell, n_cells)
    mean = total(value, cell, n_cells) / count.clamp(min=1)
    has = (count > 0).to(value.dtype)
    by_part = torch.stack([mean, count.log1p(), has], dim=-1).view(*shape, parts * _PART)
    always = torch.ones_like(has)
    known_part = torch.stack([has, always, always], dim=-1).view(*shape, parts * _PART)
    numbers = torch.cat([whole.view(*shape, _WHOLE), by_part], dim=2)
    known_whole = any_whole.view(*shape, 1).expand(*shape, _WHOLE).clone()
    known_whole[..., [_COUNT, _WHOLE - 1]] = True
    return numbers, torch.cat([known_whole, known_part.bool()], dim=2)


def _whole(value: Tensor, batch: Batch, n_channels: int, window_hours: float) -> tuple[Tensor, Tensor]:
    """Return the numbers of the whole window (B * H, 11), and whether there is any observation (B * H,)."""
    cell, n_cells = cell_of(batch, batch.channel, n_channels), batch.batch_size * n_channels
    last, has = last_position(cell, n_cells)
    first = first_position(cell, n_cells)
    flat, hours, days = value.reshape(-1), batch.hours.reshape(-1), batch.hours / 24
    count = total(batch.valid.to(value.dtype), cell, n_cells)
    n = count.clamp(min=1)
    mean, mean_day = total(value, cell, n_cells) / n, total(days, cell, n_cells) / n
    value_off, day_off = value - spread(mean, cell, value.shape), days - spread(mean_day, cell, value.shape)
    variance, day_variance = total(value_off**2, cell, n_cells) / n, total(day_off**2, cell, n_cells) / n
    slope = total(value_off * day_off, cell, n_cells) / n / (day_variance + _SLOPE_RIDGE)
    low, high = (extreme(value, cell, n_cells, which) for which in ("amin", "amax"))
    since_last, since_first = (-hours[at] / window_hours * has for at in (last, first))
    parts = [flat[last] * has, flat[first] * has, mean, low, high, variance.clamp(min=1e-8).sqrt() * has, slope]
    parts += [count.log1p(), since_last, since_first, has.to(value.dtype)]
    return torch.stack(parts, dim=-1), has
