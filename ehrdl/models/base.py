"""The base classes of encoders, fusions, heads and networks.

This module does not import torch, because the command line imports it and must start fast.

To add an encoder, fusion, head or network, write a class in a new file that inherits from its base class here and from
`torch.nn.Module`. Name the class in the config by `class_path`.

Letters: B samples, T steps, D width of a feature vector (D_m: of modality m), K outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ehrdl.batch import DataSpec
from ehrdl.options.bounds import Checked


@dataclass(frozen=True)
class Steps:
    """One encoded modality of a batch: one vector per sample, and one vector for each of its T padded steps.

    A step is a time bin or an observation of the series, or a chunk of a note.

    Attributes:
        features: (B, D), one vector per sample, as `Encoder.forward` returns it.
        present: (B,) bool, whether the sample has this modality.
        states: (B, T, D), one vector per step, as wide as the features.
        hours: (B, T), time of the step relative to the prediction time [h]; negative = before.
        valid: (B, T) bool, whether the step is real; False at padding.
    """

    features: Any
    present: Any
    states: Any
    hours: Any
    valid: Any


class Encoder(ABC, Checked):
    """Encodes one modality of a Batch: forward(batch) -> (B, D) features and (B,) bool presence.

    Attributes:
        width: D, the width of the features.
    """

    width: int

    @abstractmethod
    def forward(self, batch: Any) -> tuple[Any, Any]:
        """Return features (B, D) and whether each sample has this modality at all (B,)."""

    def steps(self, batch: Any) -> Steps:
        """Return the features of each sample and the state of each step, for a fusion that reads steps.

        An encoder without steps need not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no steps")

    @property
    def has_steps(self) -> bool:
        """Whether the encoder overrides `steps`, which a fusion that reads steps calls."""
        return type(self).steps is not Encoder.steps

    def pretrained_parameters(self) -> list[Any]:
        """Return the pretrained parameters, which are trained at a lower learning rate than the rest."""
        return []


class Fusion(ABC, Checked):
    """Joins the feature vectors of all modalities into one per sample: forward([(B, D_m)], [(B,)]) -> (B, D).

    Attributes:
        width: D, the width of the result.
        reads: what `forward` gets. `features`: the features of each modality, and whether each sample has it. `steps`:
            also the `Steps` of notes and series, as a third argument. `logits`: each modality's own logits (B, K) in
            place of its features. The fusion then returns the logits of the sample (B, K), and no head follows.
    """

    width: int
    reads: Literal["features", "steps", "logits"] = "features"

    @abstractmethod
    def forward(self, features: list[Any], present: list[Any]) -> Any:
        """Return one vector per sample (B, D), also for a sample without some of the modalities.

        Args:
            features: the features (B, D_m) of each modality.
            present: whether each sample has the modality (B,), for each modality.
        """

    def keep(self, present: list[Any]) -> list[Any]:
        """Return, for each modality, which samples keep it (B,). In training, samples may lose a modality."""
        return present


class Head(ABC, Checked):
    """Maps fused features to logits: forward((B, D)) -> (B, K)."""

    @abstractmethod
    def forward(self, features: Any) -> Any:
        """Return logits (B, K)."""


class Network(ABC, Checked):
    """A whole model: forward(batch) -> logits (B, K).

    Attributes:
        spec: the data description, which tells the loss the kind and scale of each output. If the network leaves it
            None, `LitNetwork` sets it.
    """

    spec: DataSpec | None = None

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Return logits (B, K)."""

    def loss(self, batch: Any) -> Any:
        """Return the scalar that training minimises. By default it is the mean loss over all known labels."""
        from ehrdl.models.loss import masked_loss  # here, so that naming a network needs no torch

        return masked_loss(self.forward(batch), batch.label, self.spec)

    def note_encoder(self) -> Encoder | None:
        """Return the note encoder, to be pretrained for `optim.pretrain_epochs` epochs; None = there is none."""
        return None

    def pretrained_parameters(self) -> list[Any]:
        """Return the pretrained parameters, which are trained at a lower learning rate than the rest."""
        return []

    def start_from(self, others: Sequence[Any]) -> list[list[str]]:
        """Copy weights from fitted networks into this network, before the second stage of `optim.stages: 2`.

        A network that does not support two stages need not override this method.

        Args:
            others: fitted networks, each of one modality.

        Returns:
            The names of the parts copied from each network, in the order of `others`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot start from other networks")

    @property
    def can_start_from_others(self) -> bool:
        """Whether the network overrides `start_from`, which `optim.stages: 2` calls."""
        return type(self).start_from is not Network.start_from

    def started_parameters(self) -> list[Any]:
        """Return the parameters whose weights `start_from` has copied from other networks."""
        return []
