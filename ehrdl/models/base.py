"""The base classes of encoders, fusions, heads and networks. The command line uses them, so torch is not imported here.

To add a part, write a subclass of one of them and of `torch.nn.Module` in a new file. Name it in the config by
`class_path`.
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
    """One modality as a whole and as T padded steps, which are bins of a series or chunks of notes.

    Attributes:
        features: (B, D), as `Encoder.forward` returns them.
        present: (B,) bool, as `Encoder.forward` returns it.
        states: (B, T, D), one vector per step, as wide as the features.
        hours: (B, T), time of the step relative to the prediction time [h]; negative = before.
        valid: (B, T) bool, whether the step is real; false where the modality is absent.
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
        """Return features (B, D) and whether the sample has this modality at all (B,)."""

    def steps(self, batch: Any) -> Steps:
        """Return the features step by step, for a fusion that reads steps.

        An encoder without steps need not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no steps")

    @property
    def has_steps(self) -> bool:
        """Whether the encoder can serve a fusion that reads steps."""
        return type(self).steps is not Encoder.steps

    def pretrained_parameters(self) -> list[Any]:
        """Return the pretrained parameters, which are tuned at a lower rate."""
        return []


class Fusion(ABC, Checked):
    """Joins the modalities' features into one: forward([(B, D_m)], [(B,)]) -> (B, D).

    Attributes:
        width: D, the width of the result.
        reads: what is joined. `features`: the features, as above. `steps`: forward also gets the `Steps` of notes and
            series, as a third argument. `logits`: forward gets each modality's own logits (B, K) in place of features
            and returns the logits of the sample (B, K); no head follows.
    """

    width: int
    reads: Literal["features", "steps", "logits"] = "features"

    @abstractmethod
    def forward(self, features: list[Any], present: list[Any]) -> Any:
        """Return one vector per sample (B, D), whichever modalities are missing."""

    def keep(self, present: list[Any]) -> list[Any]:
        """Choose which of the present modalities (B,) are read (B,): all of them, or fewer in training."""
        return present


class Head(ABC, Checked):
    """Maps fused features to logits: forward((B, D)) -> (B, K)."""

    @abstractmethod
    def forward(self, features: Any) -> Any:
        """Return logits (B, K)."""


class Network(ABC, Checked):
    """A whole model: forward(batch) -> logits (B, K).

    Attributes:
        spec: the data description, from which the loss takes the regression outputs and their scale. `LitNetwork` sets
            it if the network has not set it.
    """

    spec: DataSpec | None = None

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Return logits (B, K)."""

    def loss(self, batch: Any) -> Any:
        """Return the scalar that training minimises; by default the loss of all outputs over known labels."""
        from ehrdl.models.loss import masked_loss  # here, so that naming a network needs no torch

        return masked_loss(self.forward(batch), batch.label, self.spec)

    def note_encoder(self) -> Encoder | None:
        """Return the encoder that `optim.pretrain_epochs` pretrains on the training notes; None = there is none."""
        return None

    def pretrained_parameters(self) -> list[Any]:
        """Return the pretrained parameters, which are tuned at a lower rate."""
        return []

    def start_from(self, others: Sequence[Any]) -> list[list[str]]:
        """Take the weights of fitted networks, for `optim.stages: 2`. A network need not define it.

        Args:
            others: fitted networks of one modality each.

        Returns:
            The names of the parts taken from each network.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot start from other networks")

    @property
    def can_start_from_others(self) -> bool:
        """Whether `optim.stages: 2` can fit the network."""
        return type(self).start_from is not Network.start_from

    def started_parameters(self) -> list[Any]:
        """Return the parameters that `start_from` took."""
        return []
