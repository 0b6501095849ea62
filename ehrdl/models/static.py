"""Encoder of the static features: S raw values per sample (B, S) float32 -> D features per sample (B, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder
from ehrdl.options.bounds import Share, Width


class StaticMlp(nn.Module, Encoder):
    """Standardises the static features and passes them through one hidden layer. Every sample has static features.

    Args:
        spec: the data description.
        width: D, the width of the features.
        dropout: share of units dropped in training.
    """

    def __init__(self, spec: DataSpec, width: Width = 32, dropout: Share = 0.1) -> None:
        super().__init__()
        self.width = width
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.static_mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.static_std, dtype=torch.float32).clamp(min=1e-6))
        # The column of ones is the bias; it also keeps the layer valid for a source without static features.
        self.hidden = nn.Linear(len(spec.statics) + 1, width, bias=False)
        self.features = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return features (B, D) and presence (B,), which is True for every sample."""
        scaled = ((batch.static - self.mean) / self.std).clamp(-5, 5)
        ones = scaled.new_ones(batch.batch_size, 1)
        features = self.features(self.hidden(torch.cat([scaled, ones], dim=1)))
        return features, torch.ones_like(batch.row, dtype=torch.bool)
