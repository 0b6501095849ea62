"""The whole network: Batch -> logits (B, K), from the notes and series that the data have and the static features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.models.base import Encoder, Fusion, Head, Network
from ehrdl.models.fusion import GatedFusion
from ehrdl.models.head import LinearHead, MlpHead, masked_bce
from ehrdl.models.note import NoteTransformer
from ehrdl.models.series import SeriesGRU
from ehrdl.models.static import StaticMlp


class MultimodalModel(nn.Module, Network):
    """Encoders of the modalities that the data have, a fusion and a head.

    `spec.modalities` decides which encoders are built, so `notes_only` and `series_only` come of the same config.

    Args:
        spec: the data.
        note: makes the note encoder.
        series: makes the series encoder.
        static: makes the encoder of the static features, which is always built.
        fusion: makes the fusion, given the widths of the encoders.
        head: makes the head, given the width of the fusion.
        auxiliary_weight: weight in the training loss of a linear head on each modality alone, so that a strong
            modality does not keep the others from being learned.
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
        self.note: Any = note(spec) if "note" in spec.modalities else None
        self.series: Any = series(spec) if "series" in spec.modalities else None
        self.static: Any = static(spec)
        widths = [encoder.width for encoder in self.encoders]
        self.fusion: Any = fusion(spec, widths)
        self.head: Any = head(spec, self.fusion.width)
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary = nn.ModuleList(LinearHead(spec, width) for width in widths)

    @property
    def encoders(self) -> list[Any]:
        """The encoders that were built, static last."""
        return [encoder for encoder in (self.note, self.series, self.static) if encoder is not None]

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K)."""
        features, present = self.encode(batch)
        logits: Tensor = self.head(self.fusion(features, present))
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
        """Training loss: that of the fused logits, and of each modality's own where it is present."""
        features, present = self.encode(batch)
        loss = masked_bce(self.head(self.fusion(features, present)), batch.label)
        for head, feature, has in zip(self.auxiliary, features, present, strict=True):
            label = batch.label.masked_fill(~has.unsqueeze(1), float("nan"))
            loss = loss + self.auxiliary_weight * masked_bce(head(feature), label) / len(features)
        return loss
