"""Series encoder: value, hours, channel, valid (B, N) -> (B, D), a transformer whose tokens are the channels.

Letters: B samples, N observations, D width of the features, H channels, T time bins, W width of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder
from ehrdl.models.series.gru import grid
from ehrdl.models.series.observations import Observations, count_bins
from ehrdl.models.series.window_summary import ChannelUnits
from ehrdl.options.bounds import Hours, Layers, Share, Width

NAME = "ChannelTransformer"
#: Number of equal parts of the window that are summarised in addition to the whole window.
_PARTS = 4
#: Number of units that each channel's final token adds to the features, beside the gathered vectors.
_PER_CHANNEL = 8


class ChannelTransformer(nn.Module, Encoder):
    """A transformer in which each channel's whole course is one token, so that channels attend to each other.

    A token is a sum of three vectors. The first is the channel's own embedding. The second comes from summaries of the
    channel over the whole window and over its parts. Each channel has its own weights for them. The third comes from
    the channel's values on a grid of time bins: last value, mask, and time since the last observation. All channels
    share the weights for them. One more token holds the static features, and attends to all channels. The number of
    tokens depends only on the number of channels. The encoder is therefore fast on a CPU, even for long windows and
    dense series.

    Sources: Liu et al., iTransformer, ICLR 2024, arXiv:2310.06625, for channels as tokens and attention between them.
    Labach et al., DuETT, 2023, arXiv:2304.13017, for attention over event types. Zhang et al., Warpformer, KDD 2023,
    arXiv:2306.09368, for several resolutions side by side. There is no attention over time, because it is slow on a
    CPU. Its benefit was not measured.

    Args:
        spec: the data description.
        width: width of the tokens.
        layers: number of transformer layers.
        heads: number of attention heads.
        bin_hours: length of a bin of the grid [h]; it divides the window.
        dropout: share of units dropped in the transformer in training.
        channel_dropout: share of a sample's channels whose tokens carry no measurements in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: Width = 32,
        layers: Layers = 2,
        heads: Width = 4,
        bin_hours: Hours = 4.0,
        dropout: Share = 0.2,
        channel_dropout: Share = 0.2,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{NAME}: heads {heads} does not divide width {width}")
        self.bin_hours, self.n_bins = bin_hours, count_bins(NAME, spec, bin_hours)
        self.observations = Observations(NAME, spec)
        n_channels = self.observations.n_channels
        self.width = 2 * width + n_channels * _PER_CHANNEL
        self.summary = ChannelUnits(NAME, spec, width, _PARTS, channel_dropout)
        self.course = nn.Linear(3 * self.n_bins, width, bias=False)
        self.static = nn.Linear(len(spec.statics) + 1, width, bias=False)
        self.register_buffer("static_mean", torch.tensor(spec.static_mean, dtype=torch.float32))
        self.register_buffer("static_std", torch.tensor(spec.static_std, dtype=torch.float32).clamp(min=1e-6))
        self.static_mean: Tensor
        self.static_std: Tensor
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.pool = nn.Linear(width, 1)
        self.own = nn.Sequential(nn.Linear(width, _PER_CHANNEL), nn.GELU())

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has any observation (B,). If not, its features are 0."""
        present = batch.valid.any(dim=1)
        states = self.transformer(torch.cat([self._static(batch), self._tokens(batch)], dim=1))
        pooled = (self.pool(states).softmax(dim=1) * states).sum(dim=1)
        features = torch.cat([states[:, 0], pooled, self.own(states[:, 1:]).flatten(1)], dim=1)
        return features * present.unsqueeze(1), present

    def _tokens(self, batch: Batch) -> Tensor:
        """Return the channels' tokens (B, H, W)."""
        value, batch = self.observations(batch)
        cells = grid(value, batch, self.observations.n_channels, self.n_bins, self.bin_hours)
        course = torch.stack([cells.value, cells.observed.to(value.dtype), cells.since], dim=-1)  # (B, T, H, 3)
        units, kept = self.summary(value, batch)
        tokens: Tensor = units + self.course(course.transpose(1, 2).flatten(2)) * kept
        return tokens

    def _static(self, batch: Batch) -> Tensor:
        """Return the token of the static features (B, 1, W); the column of ones is its bias."""
        scaled = ((batch.static - self.static_mean) / self.static_std).clamp(-5, 5)
        token: Tensor = self.static(torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1))
        return token.unsqueeze(1)
