"""Several whole networks as one: Batch -> logits (B, K) of their mean probability.

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
    """Networks that share only their batches. Each is trained by its own loss, and the prediction is their mean.

    Networks that start from different random weights make different errors, especially if labels are few. The ensemble
    is one model in the report and one checkpoint, at the cost of all its members. The option
    `combine.models: [ensemble]` averages different models of a run instead.

    Args:
        spec: the data description.
        networks: functions that make the members, one per kind.
        copies: number of members per kind, which start from different random weights.
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
        """Return the pretrained parameters of the encoders, which are tuned at a lower rate."""
        return [parameter for network in self.networks for parameter in network.pretrained_parameters()]
