"""Fusions: features (B, D_m) and presence (B,) per modality -> (B, D), or logits (B, K) per modality -> (B, K).

Letters: B samples, M modalities, D_m width of the features of modality m, D width of the result, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehrdl.batch import DataSpec
from ehrdl.models.base import Fusion
from ehrdl.options.bounds import Probability, Share, Width


class ModalityDropout(nn.Module):
    """In training, drops one modality of some samples. A sample's only modality is kept.

    The network then also learns to use the other modalities.

    Source: Neverova et al., ModDrop, IEEE PAMI 38 (2016) 1692.

    Args:
        probability: probability that a sample with several modalities loses one.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, present: Tensor) -> Tensor:
        """Return which modalities each sample keeps (B, M), given which ones it has (B, M)."""
        if not self.training or self.probability == 0:
            return present
        draws = torch.rand(present.shape, device=present.device) * present
        chosen = torch.nn.functional.one_hot(draws.argmax(dim=1), present.shape[1]).bool()
        unlucky = torch.rand(len(present), device=present.device) < self.probability
        return present & ~(chosen & (unlucky & (present.sum(dim=1) > 1)).unsqueeze(1))


class DroppingFusion(Fusion):
    """A fusion that drops modalities in training. The network then leaves out their linear heads too."""

    drop: ModalityDropout

    def keep(self, present: list[Tensor]) -> list[Tensor]:
        """Return, for each modality, which samples keep it (B,), given which samples have it (B,)."""
        return list(self.drop(torch.stack(present, dim=1)).unbind(dim=1))


class Projected(nn.Module, DroppingFusion):
    """A base class of fusions: projects all modalities to one width. A learned vector replaces a missing modality."""

    def __init__(self, widths: list[int], width: int, modality_dropout: Probability) -> None:
        super().__init__()
        self.width = width
        self.drop = ModalityDropout(modality_dropout)
        self.project = nn.ModuleList(nn.Sequential(nn.Linear(w, width), nn.LayerNorm(width)) for w in widths)
        self.absence = nn.Parameter(torch.randn(len(widths), width) * 0.02)

    def projected(self, features: list[Tensor], kept: Tensor) -> Tensor:
        """Return the projected modalities (B, M, D). Where `kept` (B, M) is False, the learned vector replaces one."""
        vectors = torch.stack([project(x) for project, x in zip(self.project, features, strict=True)], dim=1)
        return torch.where(kept.unsqueeze(-1), vectors, self.absence.to(vectors.dtype))


def gated_sum(gate: nn.Module, vectors: Tensor) -> Tensor:
    """Return the gated sum (B, D) of M vectors (B, M, D). The gate of each unit is computed from all M vectors."""
    gates = gate(vectors.flatten(1)).sigmoid().view_as(vectors)
    summed: Tensor = (gates * vectors).sum(dim=1)
    return summed


class GatedFusion(Projected):
    """Sums the modalities. Each unit of a modality is multiplied by a gate that is computed from all modalities.

    A learned vector replaces a modality that a sample lacks. In training, some samples lose a modality that they have.
    The other modalities and the learned vector are then trained well.

    Args:
        spec: the data description.
        widths: D_m, the feature width of each modality.
        width: D, the width of the result.
        dropout: share of units dropped in training.
        modality_dropout: probability that a sample loses one of its modalities in training; an only modality is kept.
    """

    def __init__(
        self,
        spec: DataSpec,
        widths: list[int],
        width: Width = 128,
        dropout: Share = 0.1,
        modality_dropout: Probability = 0.1,
    ) -> None:
        super().__init__(widths, width, modality_dropout)
        self.gate = nn.Linear(len(widths) * width, len(widths) * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: list[Tensor], present: list[Tensor]) -> Tensor:
        """Return one vector per sample (B, D), also for a sample without some of the modalities."""
        vectors = self.projected(features, torch.stack(present, dim=1))
        fused: Tensor = self.dropout(gated_sum(self.gate, vectors))
        return fused


class ConcatFusion(Projected):
    """Concatenates the modalities and applies one layer. A learned vector replaces a modality that a sample lacks.

    Args:
        spec: the data description.
        widths: D_m, the feature width of each modality.
        width: D, the width of the result.
        dropout: share of units dropped in training.
        modality_dropout: probability that a sample loses one of its modalities in training; an only modality is kept.
    """

    def __init__(
        self,
        spec: DataSpec,
        widths: list[int],
        width: Width = 128,
        dropout: Share = 0.1,
        modality_dropout: Probability = 0.1,
    ) -> None:
        super().__init__(widths, width, modality_dropout)
        self.layer = nn.Sequential(nn.Linear(len(widths) * width, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, features: list[Tensor], present: list[Tensor]) -> Tensor:
        """Return one vector per sample (B, D), also for a sample without some of the modalities."""
        fused: Tensor = self.layer(self.projected(features, torch.stack(present, dim=1)).flatten(1))
        return fused


class LateFusion(nn.Module, DroppingFusion):
    """Averages the logits from the linear heads of all present modalities. Nothing is learned jointly.

    The static features are a modality that every sample has. If a sample has no notes and no series, only the static
    features count.

    Args:
        spec: the data description.
        widths: the feature width of each modality; not used.
        modality_dropout: probability that a sample loses one of its modalities in training; an only modality is kept.
    """

    reads = "logits"

    def __init__(self, spec: DataSpec, widths: list[int], modality_dropout: Probability = 0.1) -> None:
        super().__init__()
        self.width = len(spec.outputs)
        self.drop = ModalityDropout(modality_dropout)

    def forward(self, features: list[Tensor], present: list[Tensor]) -> Tensor:
        """Return the mean logits (B, K) over the modalities that a sample has, given each modality's logits (B, K)."""
        kept = torch.stack(present, dim=1).unsqueeze(-1)  # (B, M, 1)
        logits = torch.stack(features, dim=1)
        average: Tensor = torch.where(kept, logits, 0.0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        return average
