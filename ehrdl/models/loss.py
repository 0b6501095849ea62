"""The loss over known labels, and the conversion of logits to predictions, for B samples and K outputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ehrdl.batch import DataSpec
from ehrdl.schema import REGRESSION


def masked_bce(logits: Tensor, label: Tensor) -> Tensor:
    """Return the binary cross-entropy, averaged over the known labels. If no label is known, it and its gradient are 0.

    Args:
        logits: (B, K) logits.
        label: (B, K) float labels, NaN = unknown.

    >>> masked_bce(torch.zeros(2, 1), torch.tensor([[1.0], [float("nan")]]))
    tensor(0.6931)
    """
    known = ~label.isnan()
    target = label.nan_to_num(0.0)
    loss = binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def masked_loss(logits: Tensor, label: Tensor, spec: DataSpec | None = None) -> Tensor:
    """Return the loss of all outputs, averaged over the known labels. If no label is known, it and its gradient are 0.

    The loss of a binary output is the cross-entropy, weighted or focal if the spec says so. The loss of a regression
    output is half the squared error of the standardised value. Unless the spec reweights, in both cases the derivative
    with respect to the logit is the prediction minus the label.
    Neither kind of output therefore dominates the loss.

    Args:
        logits: (B, K) logits.
        label: (B, K) float labels, NaN = unknown. Labels of a regression output are in its own unit.
        spec: data description, with the kind, scale and weight of each output. None = all outputs are binary and have
            equal weights.
    """
    if spec is None or not (spec.regression or spec.weights or spec.pos_weight or spec.focal):
        return masked_bce(logits, label)
    logits = logits.float()
    known = (~label.isnan()) * logits.new_tensor(spec.weights or 1.0)
    target = label.nan_to_num(0.0)
    if spec.regression:
        target = ((label - label.new_tensor(spec.label_mean)) / label.new_tensor(spec.label_std)).nan_to_num(0.0)
    numeric = torch.tensor([output.kind == REGRESSION for output in spec.outputs], device=logits.device)
    loss = torch.where(numeric, (logits - target) ** 2 / 2, _cross_entropy(logits, target, spec))
    return (loss * known).sum() / known.sum().clamp(min=1e-6)


def _cross_entropy(logits: Tensor, target: Tensor, spec: DataSpec) -> Tensor:
    """Return the cross-entropy (B, K), in which samples with the outcome or hard ones may weigh more.

    The focal loss is (1 - p)^gamma x cross-entropy, where p is the probability that the network gives to what happened
    (Lin et al., ICCV 2017, equation 4). It has no weight for the classes.
    """
    weight = logits.new_tensor(spec.pos_weight) if spec.pos_weight else None
    target = target.clamp(0, 1)  # a number to regress has another loss; here it must only stay finite
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    return (-torch.expm1(-loss)) ** spec.focal * loss if spec.focal else loss


def predicted(logits: Tensor, spec: DataSpec) -> Tensor:
    """Convert logits (B, K) to probabilities, or to values in the unit of a regression output."""
    prob = torch.sigmoid(logits.float())
    if not spec.regression:
        return prob
    value = logits.float() * logits.new_tensor(spec.label_std).float() + logits.new_tensor(spec.label_mean).float()
    numeric = torch.tensor([output.kind == REGRESSION for output in spec.outputs], device=logits.device)
    return torch.where(numeric, value, prob)
