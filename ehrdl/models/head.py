"""Heads: fused features (B, D) -> logits (B, K), the loss that skips unknown labels, and what logits predict.

A column of the logits is the log-odds of a binary output, or the standardised value of a regression output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ehrdl.batch import DataSpec
from ehrdl.bounds import Share, Width
from ehrdl.models.base import Head
from ehrdl.schema import REGRESSION


def masked_bce(logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the known labels; 0 (with a gradient of 0) where none is known.

    Args:
        logits: (B, K).
        label: (B, K) float, NaN = unknown.

    >>> masked_bce(torch.zeros(2, 1), torch.tensor([[1.0], [float("nan")]]))
    tensor(0.6931)
    """
    known = ~label.isnan()
    target = label.nan_to_num(0.0)
    loss = binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def masked_loss(logits: Tensor, label: Tensor, spec: DataSpec | None = None) -> Tensor:
    """The loss of all outputs, averaged over the known labels; 0 (with a gradient of 0) where none is known.

    A binary output has its cross-entropy. A regression output has half the squared error of the standardised label:
    then the gradient in the logit is prediction minus label for both kinds, and neither drowns the other.

    Args:
        logits: (B, K).
        label: (B, K) float on the labels' own scale, NaN = unknown.
        spec: kinds of the outputs, their scale and their weights in the average; None = all are binary and count alike.
    """
    if spec is None or not (spec.regression or spec.weights):
        return masked_bce(logits, label)
    logits = logits.float()
    known = (~label.isnan()) * logits.new_tensor(spec.weights or 1.0)
    target = label.nan_to_num(0.0)
    if spec.regression:
        target = ((label - label.new_tensor(spec.label_mean)) / label.new_tensor(spec.label_std)).nan_to_num(0.0)
    numeric = torch.tensor([output.kind == REGRESSION for output in spec.outputs], device=logits.device)
    cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = torch.where(numeric, (logits - target) ** 2 / 2, cross_entropy)
    return (loss * known).sum() / known.sum().clamp(min=1e-6)


def predicted(logits: Tensor, spec: DataSpec) -> Tensor:
    """Logits (B, K) as predictions on the labels' own scale: a probability, or the value of a regression output."""
    prob = torch.sigmoid(logits.float())
    if not spec.regression:
        return prob
    value = logits.float() * logits.new_tensor(spec.label_std).float() + logits.new_tensor(spec.label_mean).float()
    numeric = torch.tensor([output.kind == REGRESSION for output in spec.outputs], device=logits.device)
    return torch.where(numeric, value, prob)


class LinearHead(nn.Module, Head):
    """One linear layer that starts at the training prevalence, and at the training mean of a regression output."""

    def __init__(self, spec: DataSpec, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, len(spec.outputs))
        start_at_prevalence(self.logits.bias, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.logits(features)
        return logits

    def evidence(self, features: Tensor) -> Tensor:
        """What the features add to the log-odds of the prevalence (B, K)."""
        return features @ self.logits.weight.T


class MlpHead(nn.Module, Head):
    """A hidden layer, then a linear one that starts at the training prevalence, or mean.

    Args:
        spec: the data.
        width: D of the features.
        hidden: width of the hidden layer.
        dropout: share of hidden units dropped in training.
    """

    def __init__(self, spec: DataSpec, width: int, hidden: Width = 64, dropout: Share = 0.1) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout))
        self.logits = nn.Linear(hidden, len(spec.outputs))
        start_at_prevalence(self.logits.bias, spec)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.logits(self.hidden(features))
        return logits


def start_at_prevalence(bias: Tensor, spec: DataSpec) -> None:
    """Set a bias (…, K) to the prevalence's logit, so that no epoch is spent on learning how rare the outcome is.

    A regression output has a prevalence of 0.5 in the spec: it starts at 0, its standardised mean.
    """
    shares = [min(max(share, 1e-4), 1 - 1e-4) for share in spec.prevalence]
    with torch.no_grad():
        bias.copy_(torch.tensor([math.log(share / (1 - share)) for share in shares]))
