"""The main network: Batch -> logits (B, K), from the static features and, if the data have them, notes and series.

Letters: B samples, K outputs, D width of a feature vector (D_m: of modality m), T word interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ehrdl.batch import Batch, DataSpec
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder, Fusion, Head, Network, Steps
from ehrdl.models.fusion.simple import GatedFusion
from ehrdl.models.head import LinearHead, MlpHead
from ehrdl.models.loss import masked_loss
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.notes.words import WordEvidence
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.static import StaticMlp


class Encoded(NamedTuple):
    """The encoded modalities of one batch.

    Attributes:
        features: the features (B, D_m) of each modality that has an encoder, by its name; `static` is last.
        present: whether each sample has the modality (B,) bool, by the modality's name.
        steps: the steps of notes and of series, in this order, if the fusion reads steps; else empty.
        words: the features (B, K + T) from `WordEvidence`; None if the network has no such part.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    steps: list[Steps]
    words: Tensor | None


class MultimodalModel(nn.Module, Network):
    """One encoder for each modality in the data, a fusion of their features, and a head on the fused features.

    Each modality also has its own linear head. The network's logits are the sum of the logits of all heads. Evidence
    from separate modalities adds up on the scale of log-odds, so the fusion need only learn the interactions. Each
    linear head also has its own loss, so that a strong modality does not hide the others.

    A fusion that reads logits, such as `LateFusion`, returns the final logits. No head follows it, and nothing is added
    to its logits. `spec.modalities` decides which encoders are built. The same config therefore also builds the models
    `notes_only` and `series_only`.

    Args:
        spec: the data description.
        note: function that builds the note encoder; null = only `words` reads the notes.
        series: function that builds the series encoder.
        static: function that builds the encoder of the static features, which every network has.
        fusion: function that builds the fusion from the spec and the encoders' widths.
        head: function that builds the head from the spec and the fusion's width; not called if the fusion reads logits.
        words: function that builds a linear model of the notes' words, such as `WordEvidence`; null = none. Its logits
            are added to the network's logits, and its penalty to the training loss. It is built only if the data have
            notes.

    Raises:
        ConfigError: neither `note` nor `words` reads the notes, or the fusion reads steps and an encoder has none.
    """

    #: The weight of each modality's own linear head in the training loss.
    unimodal_weight: ClassVar[float] = 0.3

    def __init__(
        self,
        spec: DataSpec,
        note: Callable[[DataSpec], Encoder] | None = NoteTransformer,
        series: Callable[[DataSpec], Encoder] = SeriesGRU,
        static: Callable[[DataSpec], Encoder] = StaticMlp,
        fusion: Callable[[DataSpec, list[int]], Fusion] = GatedFusion,
        head: Callable[[DataSpec, int], Head] = MlpHead,
        words: Callable[[DataSpec], WordEvidence] | None = None,
    ) -> None:
        super().__init__()
        has_notes = "note" in spec.modalities
        if has_notes and note is None and words is None:
            raise ConfigError("MultimodalModel: note and words are both null, so nothing reads the notes; name one")
        self.spec = spec
        self.note: Any = note(spec) if note is not None and has_notes else None
        self.series: Any = series(spec) if "series" in spec.modalities else None
        self.static: Any = static(spec)
        widths = [encoder.width for encoder in self.encoders.values()]
        self.fusion: Any = fusion(spec if self.note is not None else spec.only("series"), widths)
        _require_steps(self.fusion, list(self.encoders.values())[:-1])
        self.head: Any = nn.Identity() if self.fusion.reads == "logits" else head(spec, self.fusion.width)
        self.words: Any = words(spec) if words is not None and has_notes else None
        self.unimodal_heads: Any = nn.ModuleDict(
            {name: LinearHead(spec, encoder.width) for name, encoder in self.encoders.items()}
        )
        self.context: Any = None  # the other modalities' part in the words' interactions
        if self.words is not None and self.words.interactions:
            width = sum(encoder.width for name, encoder in self.encoders.items() if name != "note")
            self.context = nn.Linear(width, self.words.interactions * len(spec.outputs))
        self._started: list[nn.Module] = []

    @property
    def encoders(self) -> dict[str, Any]:
        """The encoders that were built, by modality. The encoder of the static features is last."""
        built = {"note": self.note, "series": self.series, "static": self.static}
        return {name: encoder for name, encoder in built.items() if encoder is not None}

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, K)."""
        return self.logits(self.encode(batch))

    def encode(self, batch: Batch) -> Encoded:
        """Encode each modality of a batch, once for all heads."""
        features, present, steps = {}, {}, []
        if self.words is not None:
            words, present["note"] = self.words(batch)
        for name, encoder in self.encoders.items():
            if self.fusion.reads == "steps" and name != "static":
                walked = encoder.steps(batch)
                steps.append(walked)
                features[name], present[name] = walked.features, walked.present
            else:
                features[name], present[name] = encoder(batch)
        return Encoded(features, present, steps, None if self.words is None else words)

    def logits(self, encoded: Encoded) -> Tensor:
        """Return the sum (B, K) of the logits of the fusion's head and of each modality's own linear head.

        In training, the fusion may drop a modality of a sample. It then adds nothing to the fusion, and its own
        head adds nothing to the sum.
        """
        kept = self.fusion.keep(list(encoded.present.values()))
        has = dict(zip(encoded.present, kept, strict=True))
        logits: Tensor = self.head(self._fuse(encoded, has))
        for part in self._unimodal(encoded, has):
            logits = logits + part
        return logits

    def _fuse(self, encoded: Encoded, has: dict[str, Tensor]) -> Tensor:
        """Return one vector per sample (B, D), or the logits (B, K) if the fusion reads logits."""
        inputs = list(encoded.features.values())
        if self.fusion.reads == "logits":
            inputs = [self.unimodal_heads[name](x) for name, x in encoded.features.items()]
        more = [encoded.steps] if self.fusion.reads == "steps" else []
        fused: Tensor = self.fusion(inputs, [has[name] for name in encoded.features], *more)
        return fused

    def _unimodal(self, encoded: Encoded, has: dict[str, Tensor]) -> Iterator[Tensor]:
        """Yield each modality's own contribution to the log-odds (B, K): 0 where it is absent or dropped."""
        if self.fusion.reads != "logits":
            for name, x in encoded.features.items():
                yield self.unimodal_heads[name].contribution(x) * has[name].unsqueeze(1)
        if encoded.words is not None:
            context = None
            if self.context is not None:
                others = [x * has[name].unsqueeze(1) for name, x in encoded.features.items() if name != "note"]
                context = self.context(torch.cat(others, dim=1))
            yield self.words.logits(encoded.words, context) * has["note"].unsqueeze(1)

    def note_encoder(self) -> Encoder | None:
        """Return the note encoder; None if the network has none."""
        encoder: Encoder | None = self.note
        return encoder

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the encoders' pretrained parameters, which are trained at a lower learning rate than the rest."""
        return [parameter for encoder in self.encoders.values() for parameter in encoder.pretrained_parameters()]

    def start_from(self, others: Sequence[MultimodalModel]) -> list[list[str]]:
        """Copy the weights of encoders, linear heads and the words' linear model from other fitted models.

        Each part is copied from the first model that has it. A part of another shape is not copied.

        Args:
            others: the fitted models `notes_only` and `series_only`.

        Returns:
            The names of the parts copied from each model: its modalities, and `words`.
        """
        mine, taken = self._parts(), []
        for other in others:
            fitting = {name: part for name, part in other._parts().items() if name in mine and _fits(mine[name], part)}
            for name, part in fitting.items():
                mine[name].load_state_dict(part.state_dict())
                self._started.append(mine.pop(name))
            taken.append(list(fitting))
        return taken

    def started_parameters(self) -> list[nn.Parameter]:
        """Return the parameters whose weights `start_from` has copied from other models."""
        return [parameter for part in self._started for parameter in part.parameters()]

    def _parts(self) -> dict[str, nn.Module]:
        """Return each modality's encoder with its linear head, and the words."""
        parts: dict[str, nn.Module] = {
            name: nn.ModuleList([encoder, self.unimodal_heads[name]]) for name, encoder in self.encoders.items()
        }
        return parts if self.words is None else parts | {"words": self.words}

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the logits, plus a weighted loss of each linear head and the penalty on word weights.

        The loss of a linear head covers only samples that have its modality.
        """
        encoded = self.encode(batch)
        loss = masked_loss(self.logits(encoded), batch.label, self.spec)
        if self.words is not None:
            loss = loss + self.words.penalty()
        for name, x in encoded.features.items():
            label = batch.label.masked_fill(~encoded.present[name].unsqueeze(1), float("nan"))
            alone = masked_loss(self.unimodal_heads[name](x), label, self.spec)
            loss = loss + self.unimodal_weight * alone / len(encoded.features)
        return loss


def _require_steps(fusion: Any, encoders: list[Any]) -> None:
    for encoder in encoders:
        if fusion.reads == "steps" and not encoder.has_steps:
            raise ConfigError(
                f"model.fusion: {type(fusion).__name__} reads the steps of notes and series, but "
                f"{type(encoder).__name__} offers none; choose another fusion, or an encoder with `steps`"
            )


def _fits(mine: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules have weights of the same names and shapes."""
    ours, theirs = mine.state_dict(), other.state_dict()
    return {name: value.shape for name, value in ours.items()} == {name: x.shape for name, x in theirs.items()}
