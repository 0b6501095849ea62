"""The whole network: Batch -> logits (B, K), from the notes and series that the data have and the static features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
from ehrdl.options.bounds import NonNegative


class MultimodalModel(nn.Module, Network):
    """Encoders of the modalities that the data have, a fusion and a head.

    The logits are a sum: what each modality says alone, by a linear head of its own, and what the fusion says of all
    together. Evidence of separate modalities adds up on the log-odds, so the fusion need only learn what they say
    together; and the loss of each linear head keeps a strong modality from hiding the others.

    A fusion that reads logits, such as `LateFusion`, gives the logits by itself: then nothing is summed and there is no
    head. `spec.modalities` decides which encoders are built, so `notes_only` and `series_only` come of the same config.

    Args:
        spec: the data.
        note: makes the note encoder; null = `words` alone reads the notes.
        series: makes the series encoder.
        static: makes the encoder of the static features, which is always built.
        fusion: makes the fusion, given the widths of the encoders.
        head: makes the head, given the width of the fusion; not called where the fusion reads logits.
        auxiliary_weight: weight in the training loss of each modality's linear head by itself.
        words: makes a linear model over the words of the notes, such as `WordEvidence`, whose logits are added and
            whose penalty is part of the training loss; null = none. Not built where the notes are not read.

    Raises:
        ConfigError: notes that nothing reads, or a fusion and an encoder that do not go together.
    """

    def __init__(
        self,
        spec: DataSpec,
        note: Callable[[DataSpec], Encoder] | None = NoteTransformer,
        series: Callable[[DataSpec], Encoder] = SeriesGRU,
        static: Callable[[DataSpec], Encoder] = StaticMlp,
        fusion: Callable[[DataSpec, list[int]], Fusion] = GatedFusion,
        head: Callable[[DataSpec, int], Head] = MlpHead,
        auxiliary_weight: NonNegative = 0.3,
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
        widths = [encoder.width for encoder in self.encoders]
        self.fusion: Any = fusion(spec if self.note is not None else spec.only("series"), widths)
        _require_steps(self.fusion, self.encoders[:-1])
        self.head: Any = None if self.fusion.reads == "logits" else head(spec, self.fusion.width)
        self.auxiliary_weight = auxiliary_weight
        self.words: Any = words(spec) if words is not None and has_notes else None
        self.alone: Any = nn.ModuleList(LinearHead(spec, width) for width in widths)
        self.meet: Any = None  # what the other modalities make of the words' interactions
        if self.words is not None and self.words.interactions:
            n_readings = self.words.interactions * len(spec.outputs)
            self.meet = nn.Linear(sum(widths[self.note is not None :]), n_readings)
        self._started: list[nn.Module] = []

    @property
    def encoders(self) -> list[Any]:
        """The encoders that were built, static last."""
        return [encoder for encoder in (self.note, self.series, self.static) if encoder is not None]

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K)."""
        return self._logits(batch, *self._read(batch))

    def _logits(self, batch: Batch, features: list[Tensor], present: list[Tensor], steps: list[Steps]) -> Tensor:
        """Logits (B, K) of what is kept of the modalities; what is absent or dropped in training adds nothing."""
        if self.words is None:
            return self.logits(features, self.fusion.keep(present), steps)
        if self.note is not None:
            kept = self.fusion.keep(present)
            heard = kept[0]
        else:  # words alone read the notes, and are dropped as an encoder would be
            heard, *kept = self.fusion.keep([has_chunk(batch), *present])
        said = self.words(batch, self._readings(features, kept)) * heard.unsqueeze(1)
        logits: Tensor = self.logits(features, kept, steps) + said
        return logits

    def _readings(self, features: list[Tensor], kept: list[Tensor]) -> Tensor | None:
        """What series and static features make of the words' interactions (B, T, K); nothing of what is absent."""
        if self.meet is None:
            return None
        others = [x * has.unsqueeze(1) for x, has in zip(features, kept, strict=True)][self.note is not None :]
        readings: Tensor = self.meet(torch.cat(others, dim=1)).unflatten(1, (self.words.interactions, -1))
        return readings

    def logits(self, features: list[Tensor], present: list[Tensor], steps: Sequence[Steps] = ()) -> Tensor:
        """Logits (B, K) of the modalities' features, without those of `words`; an absent one adds nothing of its own.

        Args:
            features: (B, D_m) of each modality.
            present: (B,) of each modality.
            steps: those of notes and series, where the fusion reads steps.
        """
        if self.head is None:
            late: Tensor = self.fusion([head(x) for head, x in zip(self.alone, features, strict=True)], present)
            return late
        more = [steps] if self.fusion.reads == "steps" else []
        logits: Tensor = self.head(self.fusion(features, present, *more))
        for head, feature, has in zip(self.alone, features, present, strict=True):
            logits = logits + head.evidence(feature) * has.unsqueeze(1)
        return logits

    def encode(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Features (B, D_m) and presence (B,) of each modality, static last."""
        features, present = zip(*(encoder(batch) for encoder in self.encoders), strict=True)
        return list(features), list(present)

    def _read(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[Steps]]:
        """What `encode` gives, and the steps of notes and series where the fusion reads them; each is encoded once."""
        if self.fusion.reads != "steps":
            return *self.encode(batch), []
        steps = [encoder.steps(batch) for encoder in self.encoders[:-1]]
        static, has_static = self.static(batch)
        return [*(s.features for s in steps), static], [*(s.present for s in steps), has_static], steps

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that an encoder brought with it, to be tuned at a lower rate."""
        makers = [getattr(encoder, "pretrained_parameters", list) for encoder in self.encoders]
        return [parameter for maker in makers for parameter in maker()]

    def start_from(self, others: Sequence[MultimodalModel]) -> list[list[str]]:
        """Take the encoders of other models, each with its linear head, and words; of what several have, the first's.

        Args:
            others: fitted models, `notes_only` and `series_only`.

        Returns:
            What was taken of each: modalities, and `words`; none where the shapes differ.
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
        """Those that `start_from` took."""
        return [parameter for part in self._started for parameter in part.parameters()]

    def _parts(self) -> dict[str, nn.Module]:
        """Each modality's encoder with its linear head, and the words."""
        names = [name for name in ("note", "series", "static") if getattr(self, name) is not None]
        pairs = zip(names, self.encoders, self.alone, strict=True)
        parts: dict[str, nn.Module] = {name: nn.ModuleList([encoder, head]) for name, encoder, head in pairs}
        return parts if self.words is None else parts | {"words": self.words}

    def loss(self, batch: Batch) -> Tensor:
        """Training loss: that of the logits, and of each modality's linear head where it is present."""
        features, present, steps = self._read(batch)
        loss = masked_loss(self._logits(batch, features, present, steps), batch.label, self.spec)
        if self.words is not None:
            loss = loss + self.words.penalty()
        for head, feature, has in zip(self.alone, features, present, strict=True):
            label = batch.label.masked_fill(~has.unsqueeze(1), float("nan"))
            loss = loss + self.auxiliary_weight * masked_loss(head(feature), label, self.spec) / len(features)
        return loss


def has_chunk(batch: Batch) -> Tensor:
    """Which samples read a note at all (B,)."""
    found = torch.zeros(batch.batch_size + 1, dtype=torch.bool, device=batch.valid.device)
    found[batch.link_sample] = True
    return found[:-1]


def _require_steps(fusion: Any, encoders: list[Any]) -> None:
    for encoder in encoders:
        if fusion.reads == "steps" and not hasattr(encoder, "steps"):
            raise ConfigError(
                f"model.fusion: {type(fusion).__name__} reads the steps of notes and series, but "
                f"{type(encoder).__name__} offers none; choose another fusion, or an encoder with `steps`"
            )


def _fits(mine: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same weights, but for their values."""
    ours, theirs = mine.state_dict(), other.state_dict()
    return {name: value.shape for name, value in ours.items()} == {name: x.shape for name, x in theirs.items()}
