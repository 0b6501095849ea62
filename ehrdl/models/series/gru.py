"""Series encoder: value, hours, channel, valid (B, N) -> (B, D), through a grid (B, T, H) made on the device.

Letters: B samples, N observations, D width of the features, T time bins, H channels. The last observation of a channel
is the one that became available last. Observations are in this order along N.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder, Steps
from ehrdl.models.series.cells import cell_of, extreme, first_position, last_position, spread, total
from ehrdl.models.series.observations import ChannelDropout, Scale, count_bins, indices, require_channels
from ehrdl.options.bounds import Hours, Layers, Share, Width

N_SUMMARIES = 8
#: Squared days added to the variance of the times, so that two readings minutes apart have almost no slope.
SLOPE_RIDGE = 0.25


@dataclass(frozen=True)
class Grid:
    """The series of a batch on a regular grid of time bins. Bin 0 is the oldest.

    Attributes:
        value: (B, T, H), the channel's last value in the bin. If there is none, its last value in an earlier bin, or 0.
        observed: (B, T, H) bool, whether the bin itself has an observation of the channel.
        since: (B, T, H), time from the channel's last observation to the end of the bin, as a fraction of the window;
            1 if it has not been observed yet.
        count: (B, T, H), number of observations of the channel in the bin.
    """

    value: Tensor
    observed: Tensor
    since: Tensor
    count: Tensor


class SeriesGRU(nn.Module, Encoder):
    """A GRU over the observations on a grid of time bins, with summaries of every channel over the whole window.

    Args:
        spec: the data description.
        hidden: D, the width of the recurrent state and of the features.
        bin_hours: length of a time bin [h]; it divides the window.
        layers: number of recurrent layers.
        dropout: share of units dropped in training.
        summaries: whether the network also reads the summaries: for each channel the last value, mean, minimum,
            maximum, slope, count, time since the last observation, and last minus first value.
        channel_dropout: share of a sample's channels whose observations are all hidden in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Width = 64,
        bin_hours: Hours = 12.0,
        layers: Layers = 1,
        dropout: Share = 0.1,
        summaries: bool = True,
        channel_dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        n_bins = count_bins("SeriesGRU", spec, bin_hours)
        require_channels("SeriesGRU", spec)
        self.width, self.n_bins, self.bin_hours, self.window_hours = hidden, n_bins, bin_hours, spec.window_hours
        self.scale = Scale(spec)
        self.hide = ChannelDropout("SeriesGRU", len(spec.channels), channel_dropout)
        self.register_buffer("numeric", indices(spec, "numeric"), persistent=False)
        self.register_buffer("event", indices(spec, "event"), persistent=False)
        self.numeric: Tensor
        self.event: Tensor
        n_inputs = 3 * len(self.numeric) + len(self.event)
        self.gru = nn.GRU(n_inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.summary = _summary_mlp(N_SUMMARIES * len(spec.channels), hidden, dropout) if summaries else None
        self.features = nn.Linear(hidden * (1 + summaries), hidden)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has any observation (B,). If not, its features are 0."""
        steps = self.steps(batch)
        return steps.features, steps.present

    def steps(self, batch: Batch) -> Steps:
        """Return each sample's features, and the GRU's state after each time bin.

        `valid` is False for a time bin without observations.
        """
        present = batch.valid.any(dim=1)
        batch = self.hide(batch)
        value = self.scale(batch.value, batch.channel)
        cells = grid(value, batch, self.scale.n_channels, self.n_bins, self.bin_hours)
        states = self.gru(self._inputs(cells))[0]
        parts = [states[:, -1]]
        if self.summary is not None:
            parts.append(self.summary(summarise(value, batch, self.scale.n_channels, self.window_hours)))
        features = self.features(self.dropout(torch.cat(parts, dim=1)))
        hours = torch.arange(1 - self.n_bins, 1, device=value.device) * self.bin_hours  # where each bin ends
        valid = cells.count.sum(dim=2) > 0
        return Steps(features * present.unsqueeze(1), present, states, hours.expand_as(valid), valid)

    def _inputs(self, cells: Grid) -> Tensor:
        """Return the inputs of the GRU (B, T, inputs): value, mask and time since last of numbers; counts of events."""
        numbers = [cells.value, cells.observed.to(cells.value.dtype), cells.since]
        counts = cells.count[..., self.event].log1p()
        return torch.cat([x[..., self.numeric] for x in numbers] + [counts], dim=-1)


def grid(value: Tensor, batch: Batch, n_channels: int, n_bins: int, bin_hours: float) -> Grid:
    """Put the observations on a grid of `n_bins` time bins. The last bin ends at the prediction time, and includes it.

    Args:
        value: (B, N), standardised values.
        batch: the batch, of which `hours`, `channel` and `valid` are read. Its observations are in the order in which
            they became available.
        n_channels: H, the number of channels.
        n_bins: T, the number of bins.
        bin_hours: length of each bin [h].
    """
    n_samples = batch.batch_size
    index = ((batch.hours + n_bins * bin_hours) / bin_hours).floor().long().clamp(0, n_bins - 1)
    cell = cell_of(batch, index * n_channels + batch.channel, n_bins * n_channels)
    last, observed = last_position(cell, n_samples * n_bins * n_channels)
    shape = (n_samples, n_bins, n_channels)
    count = total(batch.valid.to(value.dtype), cell, n_samples * n_bins * n_channels).view(shape)
    observed = observed.view(shape)
    bins = torch.arange(n_bins, device=value.device).view(1, -1, 1)
    # The bin that each cell's value comes from: its own bin or the nearest earlier observed bin; -1 = none.
    source = torch.where(observed, bins, -1).cummax(dim=1).values
    known, source = source >= 0, source.clamp(min=0)
    values = (value.reshape(-1)[last].view(shape).gather(1, source) * known).to(value.dtype)
    hours = batch.hours.reshape(-1)[last].view(shape).gather(1, source)
    since = ((bins + 1 - n_bins) * bin_hours - hours) / (n_bins * bin_hours)
    return Grid(values, observed, torch.where(known, since.clamp(0, 1), 1.0), count)


def summarise(value: Tensor, batch: Batch, n_channels: int, window_hours: float) -> Tensor:
    """Summarise each channel over the window by eight numbers (B, 8 * H).

    They are the last value, mean, minimum, maximum, slope [1/d], log(1 + count), the time since the last observation,
    and the last minus the first value. The time is a fraction of the window. For a channel without observations, the
    time is 1 and all other numbers are 0.

    Args:
        value: (B, N), standardised values; 0 at padding.
        batch: the batch, of which `hours`, `channel` and `valid` are read.
        n_channels: H, the number of channels.
        window_hours: length of the window [h].
    """
    n_cells = batch.batch_size * n_channels
    cell = cell_of(batch, batch.channel, n_channels)
    last, observed = last_position(cell, n_cells)
    days = batch.hours / 24
    count = total(batch.valid.to(value.dtype), cell, n_cells)
    n = count.clamp(min=1)
    mean, mean_day = total(value, cell, n_cells) / n, total(days, cell, n_cells) / n
    day_off = days - spread(mean_day, cell, value.shape)
    value_off = value - spread(mean, cell, value.shape)
    covariance, variance = total(day_off * value_off, cell, n_cells), total(day_off * day_off, cell, n_cells)
    low, high = (extreme(value, cell, n_cells, which) for which in ("amin", "amax"))
    latest = value.reshape(-1)[last] * observed
    since = torch.where(observed, (-batch.hours.reshape(-1)[last] / window_hours).clamp(0, 1), 1.0)
    parts = [
        latest,
        mean,
        low,
        high,
        (covariance / (variance + SLOPE_RIDGE)).clamp(-5, 5),
        count.log1p(),
        since,
        latest - value.reshape(-1)[first_position(cell, n_cells)] * observed,
    ]
    return torch.stack(parts, dim=-1).view(batch.batch_size, n_channels * N_SUMMARIES)


def _summary_mlp(n_inputs: int, width: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(n_inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
