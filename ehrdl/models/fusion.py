"""Fusion: one (B, D_m) and presence (B,) a modality -> (B, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import DataSpec
from ehrdl.models.base import Fusion


class GatedFusion(nn.Module, Fusion):
    """Sums the modalities, each through a gate that sees all of them.

    An absent modality is replaced by a vector that is learned. In training a present modality of some samples is
    dropped, so that the others are learned too and the absence vector is well known.

    Args:
        spec: the data.
        widths: D_m of each modality.
        width: D of the result.
        dropout: share of units dropped in training.
        modality_dropout: probability that a sample loses one of its modalities in training; never its last one.
    """

    def __init__(
        self, spec: DataSpec, widths: list[int], width: int = 128, dropout: float = 0.1, modality_dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.width = width
        self.modality_dropout = modality_dropout
        self.project = nn.ModuleList(nn.Sequential(nn.Linear(w, width), nn.LayerNorm(width)) for w in widths)
        self.absence = nn.Parameter(torch.randn(len(widths), width) * 0.02)
        self.gate = nn.Linear(len(widths) * width, len(widths) * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: list[Tensor], present: list[Tensor]) -> Tensor:
        """One vector a sample (B, D), whatever is missing."""
        projected = torch.stack([project(x) for project, x in zip(self.project, features, strict=True)], dim=1)
        kept = self._drop(torch.stack(present, dim=1)).unsqueeze(-1)
        joined = torch.where(kept, projected, self.absence.to(projected.dtype))  # (B, M, D)
        gates = self.gate(joined.flatten(1)).sigmoid().view_as(joined)
        fused: Tensor = self.dropout((gates * joined).sum(dim=1))
        return fused

    def _drop(self, present: Tensor) -> Tensor:
        """Presence (B, M) after modality dropout."""
        if not self.training or self.modality_dropout == 0:
            return present
        draws = torch.rand(present.shape, device=present.device) * present
        chosen = torch.nn.functional.one_hot(draws.argmax(dim=1), present.shape[1]).bool()
        unlucky = torch.rand(len(present), device=present.device) < self.modality_dropout
        return present & ~(chosen & (unlucky & (present.sum(dim=1) > 1)).unsqueeze(1))
