"""Several whole networks as one: Batch -> logits of their mean probability, for B samples and K outputs (B, K).

Source: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS
2017, arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Network
from ehrdl.models.networks.committee import mean_member
from ehrdl.options.bounds import Bound, Filled


class Ensemble(nn.Module, Network):
    """Separate networks trained on the same batches. Each has its own loss, and the prediction is their mean.

    Networks that start from different random weights make different errors, especially if labels are few. The ensemble
    is one model in the report, and has one checkpoint. It costs as much as all its members together. To average
    different models of a run instead, use the option `combine.models: [ensemble]`.

    Args:
        spec: the data description.
        networks: functions that each build one network.
        copies: number of times that each function is called. Each copy starts from different random weights.
    """

    def __init__(
        self,
        spec: DataSpec,
        networks: Annotated[list[Callable[[DataSpec], Network]], Filled()],
        copies: Annotated[int, Bound("[1, 1024]")] = 3,
    ) -> None:
        super().__init__()
        self.spec = spec
        built: list[Any] = [make(spec) for make in networks for _ in range(copies)]
        for network in built:
            network.spec = spec
        self.networks: Any = nn.ModuleList(built)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, K)."""
        return mean_member(torch.stack([network(batch) for network in self.networks], dim=1), self.spec)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the networks' own losses."""
        return torch.stack([network.loss(batch) for network in self.networks]).mean()

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the encoders' pretrained parameters, which are trained at a lower learning rate than the rest."""
        return [parameter for network in self.networks for parameter in network.pretrained_parameters()]
