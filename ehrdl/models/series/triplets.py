"""Series encoder: value, hours, channel, valid (B, N) -> (B, D), a transformer over (time, channel, value) triplets.

Letters: B samples, N observations, T triplets (at most `max_triplets` of the N observations), D width of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder, Steps
from ehrdl.models.series.observations import Observations
from ehrdl.options.bounds import Count, Layers, Share, Width

NAME = "TripletTransformer"


class TripletTransformer(nn.Module, Encoder):
    """A transformer over single observations, without a grid or imputation.

    An observation is represented by the sum of three embeddings: of its channel, of its value and of its time. The
    channel is looked up in a table. The value and the time are each embedded by a small network. Attention pooling
    turns the transformed observations of a sample into one vector.

    Source: Tipirneni and Reddy, Self-Supervised Transformer for Sparse and Irregularly Sampled Multivariate Clinical
    Time-Series (STraTS), ACM TKDD 16 (2022) 105, doi 10.1145/3516367. The pretraining by forecasting is left
    out. Layers normalise before attention, so that training needs no long warm-up.

    Args:
        spec: the data description.
        width: D, the width of the states and of the features.
        layers: number of transformer layers.
        heads: number of attention heads.
        dropout: share of units dropped in training; attention weights are not dropped.
        max_triplets: the most observations read per sample; the latest are kept. The cost grows with the square of this
            number.
        channel_dropout: share of a sample's channels whose observations are all hidden in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: Width = 32,
        layers: Layers = 2,
        heads: Width = 4,
        dropout: Share = 0.2,
        max_triplets: Count = 512,
        channel_dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{NAME}: heads {heads} does not divide width {width}")
        self.width, self.max_triplets, self.window_hours = width, max_triplets, spec.window_hours
        self.observations = Observations(NAME, spec, channel_dropout)
        self.channel = nn.Embedding(self.observations.n_channels, width)
        self.value, self.time = NumberEmbedding(width), NumberEmbedding(width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        # Dropping attention weights would keep a (T, T) matrix per head and layer in memory, and be four times slower.
        layer.self_attn.dropout = 0.0
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.pool = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.features = nn.Linear(width, width)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D), and whether each sample has any observation (B,). If not, its features are 0."""
        steps = self.steps(batch)
        return steps.features, steps.present

    def steps(self, batch: Batch) -> Steps:
        """Return the features of each sample, and the transformer's state of each of its T observations."""
        present = batch.valid.any(dim=1)
        value, batch = self.observations(batch)
        kept = latest(batch.valid, self.max_triplets)
        value, hours, channel, valid = (x.gather(1, kept) for x in (value, batch.hours, batch.channel, batch.valid))
        triplets = self.channel(channel) + self.value(value) + self.time(1 + hours / self.window_hours)
        states = self._transform(triplets, valid)
        weight = self.pool(states).squeeze(-1).masked_fill(~valid, -torch.inf)
        # Without this, a sample without a valid triplet would have no finite weight.
        weight = weight.masked_fill(~valid.any(dim=1, keepdim=True), 0.0).softmax(dim=1)
        features = self.features((weight.unsqueeze(-1) * states).sum(dim=1))
        return Steps(features * present.unsqueeze(1), present, states, hours, valid)

    def _transform(self, triplets: Tensor, valid: Tensor) -> Tensor:
        """Return the states (B, T, D).

        An extra first token is always valid, so that a sample without triplets can attend to something.
        """
        n_samples = len(valid)
        tokens = torch.cat([self.start.expand(n_samples, 1, -1), triplets], dim=1)
        missing = torch.cat([valid.new_zeros(n_samples, 1), ~valid], dim=1)
        states: Tensor = self.transformer(tokens, src_key_padding_mask=missing)[:, 1:]
        return states


class NumberEmbedding(nn.Module):
    """Embeds a number as a vector, by a network with one hidden layer of sqrt(D) units: (…) -> (…, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, round(width**0.5))
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, width, bias=False))

    def forward(self, number: Tensor) -> Tensor:
        """Return the vectors (…, D) of numbers (…)."""
        vector: Tensor = self.layers(number.unsqueeze(-1))
        return vector


def latest(valid: Tensor, most: int) -> Tensor:
    """Return the positions of each sample's last `most` valid observations (B, T), in ascending order.

    T is `most`, or N if that is smaller. If a sample has fewer valid observations, invalid ones fill the row.

    Args:
        valid: (B, N), whether an observation is valid.
        most: the largest number of positions per sample.

    >>> latest(torch.tensor([[True, True, False, True], [True, False, False, False]]), 2).tolist()
    [[1, 3], [0, 3]]
    """
    n = valid.shape[1]
    rank = torch.where(valid, n, 0) + torch.arange(n, device=valid.device)
    return rank.topk(min(most, n), dim=1).indices.sort(dim=1).values
