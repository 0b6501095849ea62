"""Fusion by two-way attention between the steps of a series and the chunks of notes: Steps -> (B, D).

Letters: B samples, D width of a vector (D_m: of modality m), T steps of the attending modality (queries), U steps of
the attended modality (keys). A step is a time bin of the series or a chunk of a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from ehrdl.batch import DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Steps
from ehrdl.models.fusion.simple import Projected, gated_sum
from ehrdl.options.bounds import Probability, Share, Width


class CrossAttentionFusion(Projected):
    """Fusion in which each bin of the series attends to the note chunks, and each chunk to the bins.

    Attention gives one vector per sample for each direction. These vectors and the modalities' own vectors are summed
    through gates, as in `GatedFusion`. If a sample lacks a modality, or loses it in training, a learned vector replaces
    the result of the attention.

    Args:
        spec: the data description.
        widths: D_m, the feature width of each modality.
        width: D, the width of the result and of the attention.
        heads: number of attention heads; it divides `width`.
        dropout: share of units and of attention weights dropped in training.
        modality_dropout: probability that a sample loses one of its modalities in training; an only modality is kept.
    """

    reads = "steps"

    def __init__(
        self,
        spec: DataSpec,
        widths: list[int],
        width: Width = 128,
        heads: Width = 4,
        dropout: Share = 0.1,
        modality_dropout: Probability = 0.1,
    ) -> None:
        super().__init__(widths, width, modality_dropout)
        if heads < 1 or width % heads:
            raise ConfigError(f"CrossAttentionFusion: heads {heads} does not divide the width of {width}")
        self.pairs = list(permutations(range(len(spec.modalities)), 2))
        self.listen = nn.ModuleList(Listen(widths[a], widths[b], width, heads, dropout) for a, b in self.pairs)
        n_vectors = len(widths) + len(self.pairs)
        self.gate = nn.Linear(n_vectors * width, n_vectors * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: list[Tensor], present: list[Tensor], steps: Sequence[Steps] = ()) -> Tensor:
        """Return one vector per sample (B, D), also for a sample without some of the modalities.

        Args:
            features: the features (B, D_m) of each modality.
            present: whether each sample has the modality (B,), for each modality.
            steps: the steps of the notes and of the series, in this order.
        """
        kept = torch.stack(present, dim=1)
        heard = [
            listen(steps[a], steps[b], kept[:, a] & kept[:, b])
            for listen, (a, b) in zip(self.listen, self.pairs, strict=True)
        ]
        vectors = torch.cat([self.projected(features, kept), *(x.unsqueeze(1) for x in heard)], dim=1)
        fused: Tensor = self.dropout(gated_sum(self.gate, vectors))
        return fused


class Listen(nn.Module):
    """Attention from the steps of one modality to the steps of another, pooled over the attending steps.

    The vector of a step includes its age, so that a time bin can find the notes of its day.

    Args:
        own: width of the states of the attending modality.
        other: width of the states of the attended modality.
        width: D, the width of the result.
        heads: number of attention heads.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, own: int, other: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.Linear(own + 1, width)
        self.other = nn.Linear(other + 1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.score = nn.Linear(width, 1)
        self.silence = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, own: Steps, other: Steps, both: Tensor) -> Tensor:
        """Return one vector per sample (B, D); a learned one for a sample without a step of either modality.

        Args:
            own: the steps that attend.
            other: the steps that are attended.
            both: (B,), whether the sample has both modalities; if not, it also gets the learned vector.
        """
        query, key = self.norms[0](self.own(aged(own))), self.norms[1](self.other(aged(other)))  # (B, T, D), (B, U, D)
        heard, _ = self.attention(query, key, key, key_padding_mask=~readable(other.valid), need_weights=False)
        steps = self.norms[2](query + heard)
        score = self.score(steps).float().masked_fill(~readable(own.valid).unsqueeze(-1), -torch.inf)
        pooled = (score.softmax(dim=1).to(steps.dtype) * steps).sum(dim=1)
        both = both & own.valid.any(dim=1) & other.valid.any(dim=1)
        return torch.where(both.unsqueeze(1), pooled, self.silence.to(pooled.dtype))


def aged(steps: Steps) -> Tensor:
    """Return the state of each step, with log(1 + age in days) as an additional column (B, T, D + 1)."""
    age = (-steps.hours / 24).clamp(min=0).log1p()
    return torch.cat([steps.states, age.unsqueeze(-1).to(steps.states.dtype)], dim=-1)


def readable(valid: Tensor) -> Tensor:
    """Return which steps attention may read (B, T): the valid ones.

    If a sample has no valid step, attention may read all of its steps, since a softmax over nothing would be NaN.
    """
    return valid | ~valid.any(dim=1, keepdim=True)
