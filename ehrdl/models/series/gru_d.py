"""Series encoder: value, hours, channel, valid (B, N) -> (B, D), a GRU whose inputs and state decay.

Letters: B samples, N observations, D width of state and features, T time bins, H numeric channels, E event channels.

Source: Che et al., Recurrent Neural Networks for Multivariate Time Series with Missing Values, Scientific Reports 8
(2018) 6085, doi 10.1038/s41598-018-24271-9.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder, Steps
from ehrdl.models.series.gru import grid
from ehrdl.models.series.observations import Observations, count_bins
from ehrdl.options.bounds import Hours, Share, Width


class GRUD(nn.Module, Encoder):
    """GRU-D over a regular grid of time bins, with one step per bin.

    The time intervals of the paper are thus multiples of the bin length; they are in days. A missing value is replaced
    by the channel's last value, which decays towards the channel's training mean (0 after standardising). The state
    decays with the time since each channel was last observed. Both decay rates are learned. Counts of events (drugs,
    procedures) are never missing, so they do not decay.

    Args:
        spec: the data description.
        hidden: D, the width of the recurrent state and of the features.
        bin_hours: length of a bin [h]; it divides the window.
        dropout: share of feature units dropped in training.
        channel_dropout: share of a sample's channels whose observations are all hidden in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Width = 64,
        bin_hours: Hours = 2.0,
        dropout: Share = 0.1,
        channel_dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.bin_hours = hidden, bin_hours
        self.n_bins = count_bins("GRUD", spec, bin_hours)
        self.observations = Observations("GRUD", spec, channel_dropout)
        self.cell = DecayCell(len(self.observations.numeric), hidden, len(self.observations.event))
        self.dropout = nn.Dropout(dropout)
        self.features = nn.Linear(hidden, hidden)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has any observation (B,). If not, its features are 0."""
        steps = self.steps(batch)
        return steps.features, steps.present

    def steps(self, batch: Batch) -> Steps:
        """Return each sample's features, and the state after each time bin.

        `valid` is False for a time bin without observations.
        """
        present = batch.valid.any(dim=1)
        value, batch = self.observations(batch)
        cells = grid(value, batch, self.observations.n_channels, self.n_bins, self.bin_hours)
        numeric, event = self.observations.numeric, self.observations.event
        observed = cells.observed[..., numeric].to(value.dtype)
        states = self.cell(
            cells.value[..., numeric],
            observed,
            intervals(observed, self.bin_hours / 24),
            cells.count[..., event].log1p(),
        )
        features = self.features(self.dropout(states[:, -1]))
        hours = torch.arange(1 - self.n_bins, 1, device=value.device) * self.bin_hours  # where each bin ends
        valid = cells.count.sum(dim=2) > 0
        return Steps(features * present.unsqueeze(1), present, states, hours.expand_as(valid), valid)


class DecayCell(nn.Module):
    """The recurrence of GRU-D: values, masks and intervals (B, T, H), events (B, T, E) -> states (B, T, D).

    Args:
        n_inputs: H, the number of numeric channels.
        hidden: D, the width of the state.
        n_events: E, the number of further inputs that are never missing.
    """

    def __init__(self, n_inputs: int, hidden: int, n_events: int = 0) -> None:
        super().__init__()
        if n_inputs < 1:
            raise ConfigError("GRUD: the data have no numeric channels, so nothing can decay; use SeriesGRU")
        self.input_decay = nn.Parameter(torch.rand(n_inputs))  # (H,): the weights of the inputs' decay are diagonal
        self.input_decay_bias = nn.Parameter(torch.zeros(n_inputs))
        self.state_decay = nn.Linear(n_inputs, hidden)
        self.inputs = nn.Linear(2 * n_inputs + n_events, 3 * hidden)  # W and V of all gates, with their biases
        self.gates = nn.Linear(hidden, 2 * hidden, bias=False)  # U of update and reset
        self.candidate = nn.Linear(hidden, hidden, bias=False)  # U of the new state

    def forward(self, value: Tensor, observed: Tensor, interval: Tensor, events: Tensor) -> Tensor:
        """Return the state after each step (B, T, D).

        Args:
            value: (B, T, H), the channel's last value up to the step, standardised; 0 if there is none yet.
            observed: (B, T, H), 1 if the channel is observed in the step itself, else 0.
            interval: (B, T, H), the time from the channel's previous observation to the step [d], from `intervals`.
            events: (B, T, E), log(1 + count) of each event in the step.
        """
        kept = torch.exp(-torch.relu(self.input_decay * interval + self.input_decay_bias))
        filled = observed * value + (1 - observed) * kept * value  # towards the mean, which is 0
        carry = torch.exp(-torch.relu(self.state_decay(interval)))
        update, reset, candidate = self.inputs(torch.cat([filled, observed, events], dim=-1)).chunk(3, dim=-1)
        state = value.new_zeros(len(value), carry.shape[-1])
        states = []
        for t in range(value.shape[1]):
            state = carry[:, t] * state
            z, r = self.gates(state).chunk(2, dim=-1)
            z, r = torch.sigmoid(update[:, t] + z), torch.sigmoid(reset[:, t] + r)
            new = torch.tanh(candidate[:, t] + self.candidate(r * state))
            state = (1 - z) * state + z * new
            states.append(state)
        return torch.stack(states, dim=1)


def intervals(observed: Tensor, step: float) -> Tensor:
    """Return the time from each channel's previous observation to each step (B, T, H), in the unit of `step`.

    The time is 0 at the first step. As long as a channel has no earlier observation, the time counts from the first
    step (section Notations of the paper).

    Args:
        observed: (B, T, H), 1 if the channel is observed in the step, else 0.
        step: the length of a step.

    >>> intervals(torch.tensor([[[1.0], [0.0], [0.0], [1.0], [0.0]]]), 2.0).flatten().tolist()
    [0.0, 2.0, 4.0, 6.0, 2.0]
    """
    n_steps = observed.shape[1]
    index = torch.arange(n_steps, device=observed.device).view(1, -1, 1)
    seen = torch.where(observed > 0, index, 0).cummax(dim=1).values
    before = torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], dim=1)
    return (index - before).to(observed.dtype) * step
