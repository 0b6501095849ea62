"""Heads: fused features of width D (B, D) -> logits of K outputs (B, K), for B samples.

A column of the logits is the log-odds of a binary output, or the standardised value of a regression output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ehrdl.batch import MIN_SHARE, DataSpec
from ehrdl.models.base import Head
from ehrdl.options.bounds import Share, Width


class LinearHead(nn.Module, Head):
    """A linear layer. Its bias starts at the training prevalence of each output (regression output: training mean)."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, len(spec.outputs))
        start_at_prevalence(self.logits.bias, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.logits(features)
        return logits

    def contribution(self, features: Tensor) -> Tensor:
        """Return the logits without the bias (B, K), which is what the features add to the prevalence."""
        return features @ self.logits.weight.T


class MlpHead(nn.Module, Head):
    """A hidden layer, then a linear layer whose bias starts at the training prevalence or mean of each output.

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
    """Set a bias (…, K) to the logit of each output's training prevalence.

    No epoch is then spent on learning that an outcome is rare.

    The spec gives a regression output a prevalence of 0.5. Its bias is then 0, the mean of the standardised labels.
    """
    shares = [min(max(share, MIN_SHARE), 1 - MIN_SHARE) for share in spec.prevalence]
    with torch.no_grad():
        bias.copy_(torch.tensor([math.log(share / (1 - share)) for share in shares]))
