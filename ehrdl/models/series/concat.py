"""Series encoder: several encoders side by side, (B, D_1), (B, D_2), … -> (B, D_1 + D_2 + …)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder
from ehrdl.options.bounds import Filled


class ConcatEncoder(nn.Module, Encoder):
    """Applies several encoders to the same modality, and concatenates their features.

    An example is a recurrent encoder beside an encoder of summaries of the whole window.

    Args:
        spec: the data description.
        encoders: functions that each build one encoder from `spec`.
    """

    def __init__(self, spec: DataSpec, encoders: Annotated[list[Callable[[DataSpec], Encoder]], Filled()]) -> None:
        super().__init__()
        built: list[Any] = [make(spec) for make in encoders]
        self.encoders = nn.ModuleList(built)
        self.width = sum(encoder.width for encoder in built)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the concatenated features of all encoders (B, D), and whether any encoder finds data (B,)."""
        features, present = zip(*(encoder(batch) for encoder in self.encoders), strict=True)
        return torch.cat(features, dim=1), torch.stack(present).any(dim=0)
