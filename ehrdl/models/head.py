"""Heads: fused features (B, D) -> logits (B, K).

A column of the logits is the log-odds of a binary output, or the standardised value of a regression output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ehrdl.batch import DataSpec
from ehrdl.models.base import Head
from ehrdl.options.bounds import Share, Width


class LinearHead(nn.Module, Head):
    """A linear layer that starts at the training prevalence, or the training mean of a regression output."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, len(spec.outputs))
        start_at_prevalence(self.logits.bias, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.logits(features)
        return logits

    def contribution(self, features: Tensor) -> Tensor:
        """Return the features' contribution to the logits (B, K), beyond the prevalence."""
        return features @ self.logits.weight.T


class MlpHead(nn.Module, Head):
    """A hidden layer, then a linear layer that starts at the training prevalence or mean.

    Args:
        spec: the data description.
        width: D, the width of the features.
        hidden: width of the hidden layer.
        dropout: share of hidden units dropped in training.
    """

    def __init__(self, spec: DataSpec, width: int, hidden: Width = 64, dropout: Share = 0.1) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout))
        self.logits = nn.Linear(hidden, len(spec.outputs))
        start_at_prevalence(self.logits.bias, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.logits(self.hidden(features))
        return logits


def start_at_prevalence(bias: Tensor, spec: DataSpec) -> None:
    """Set a bias (…, K) to the logit of the prevalence, so that no epoch is spent on learning the outcome's rarity.

    A regression output has a prevalence of 0.5 in the spec, so it starts at 0, its standardised mean.
    """
    shares = [min(max(share, 1e-4), 1 - 1e-4) for share in spec.prevalence]
    with torch.no_grad():
        bias.copy_(torch.tensor([math.log(share / (1 - share)) for share in shares]))
