"""The whole network: Batch -> logits (B, K), from the notes and series that the data have and the static features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder, Fusion, Head, Network
from ehrdl.models.fusion import GatedFusion
from ehrdl.models.head import LinearHead, MlpHead, masked_loss
from ehrdl.models.note import NoteTransformer
from ehrdl.models.series import SeriesGRU
from ehrdl.models.static import StaticMlp


class MultimodalModel(nn.Module, Network):
    """Encoders of the modalities that the data have, a fusion and a head.

    The logits are a sum: what each modality says alone, by a linear head of its own, and what the fusion says of all
    together. Evidence of separate modalities adds up on the log-odds, so the fusion need only learn what they say
    together; and the loss of each linear head keeps a strong modality from hiding the others.

    `spec.modalities` decides which encoders are built, so `notes_only` and `series_only` come of the same config.

    Args:
        spec: the data.
        note: makes the note encoder.
        series: makes the series encoder.
        static: makes the encoder of the static features, which is always built.
        fusion: makes the fusion, given the widths of the encoders.
        head: makes the head, given the width of the fusion.
        auxiliary_weight: weight in the training loss of each modality's linear head by itself.
    """

    def __init__(
        self,
        spec: DataSpec,
        note: Callable[[DataSpec], Encoder] = NoteTransformer,
        series: Callable[[DataSpec], Encoder] = SeriesGRU,
        static: Callable[[DataSpec], Encoder] = StaticMlp,
        fusion: Callable[[DataSpec, list[int]], Fusion] = GatedFusion,
        head: Callable[[DataSpec, int], Head] = MlpHead,
        auxiliary_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.note: Any = note(spec) if "note" in spec.modalities else None
        self.series: Any = series(spec) if "series" in spec.modalities else None
        self.static: Any = static(spec)
        widths = [encoder.width for encoder in self.encoders]
        self.fusion: Any = fusion(spec, widths)
        self.head: Any = head(spec, self.fusion.width)
        self.auxiliary_weight = auxiliary_weight
        self.alone: Any = nn.ModuleList(LinearHead(spec, width) for width in widths)

    @property
    def encoders(self) -> list[Any]:
        """The encoders that were built, static last."""
        return [encoder for encoder in (self.note, self.series, self.static) if encoder is not None]

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K)."""
        return self.logits(*self.encode(batch))

    def logits(self, features: list[Tensor], present: list[Tensor]) -> Tensor:
        """Logits (B, K) of the modalities' features; an absent modality adds nothing of its own."""
        logits: Tensor = self.head(self.fusion(features, present))
        for head, feature, has in zip(self.alone, features, present, strict=True):
            logits = logits + head.evidence(feature) * has.unsqueeze(1)
        return logits

    def encode(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Features (B, D_m) and presence (B,) of each modality, static last."""
        features, present = zip(*(encoder(batch) for encoder in self.encoders), strict=True)
        return list(features), list(present)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that an encoder brought with it, to be tuned at a lower rate."""
        makers = [getattr(encoder, "pretrained_parameters", list) for encoder in self.encoders]
        return [parameter for maker in makers for parameter in maker()]

    def loss(self, batch: Batch) -> Tensor:
        """Training loss: that of the logits, and of each modality's linear head where it is present."""
        features, present = self.encode(batch)
        loss = masked_loss(self.logits(features, present), batch.label, self.spec)
        for head, feature, has in zip(self.alone, features, present, strict=True):
            label = batch.label.masked_fill(~has.unsqueeze(1), float("nan"))
            loss = loss + self.auxiliary_weight * masked_loss(head(feature), label, self.spec) / len(features)
        return loss
