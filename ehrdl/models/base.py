"""What an encoder, a fusion, a head and a network are. Free of torch, so that the command line can name them.

To add one, subclass it together with `torch.nn.Module` in a file of its own and name it in the config by `class_path`.
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
    """One modality as a whole and step by step: bins of a series, chunks of notes. T steps, padded.

    Attributes:
        features: (B, D), as `Encoder.forward` gives them.
        present: (B,) bool, likewise.
        states: (B, T, D), a vector a step, of the width of the features.
        hours: (B, T), when the step was, relative to the prediction time; negative = before.
        valid: (B, T) bool, a step that is there; none where the modality is absent.
    """

    features: Any
    present: Any
    states: Any
    hours: Any
    valid: Any


class Encoder(ABC, Checked):
    """Encodes one modality of a Batch: forward(batch) -> (B, D) features and (B,) bool presence.

    Attributes:
        width: D.
    """

    width: int

    @abstractmethod
    def forward(self, batch: Any) -> tuple[Any, Any]:
        """Features (B, D) and whether the sample has this modality at all (B,)."""

    def steps(self, batch: Any) -> Steps:
        """The features step by step, for a fusion that reads steps; an encoder that has none leaves this alone."""
        raise NotImplementedError(f"{type(self).__name__} has no steps")

    @property
    def has_steps(self) -> bool:
        """Whether the encoder can serve a fusion that reads steps."""
        return type(self).steps is not Encoder.steps

    def pretrained_parameters(self) -> list[Any]:
        """Those that come fitted already, to be tuned at a lower rate."""
        return []


class Fusion(ABC, Checked):
    """Joins the modalities' features into one: forward([(B, D_m)], [(B,)]) -> (B, D).

    Attributes:
        width: D of the result.
        reads: what is joined. `features`: as above. `steps`: forward gets the `Steps` of notes and series as a third
            argument. `logits`: in place of features each modality's own logits (B, K), and the result is the logits of
            the sample (B, K): no head follows.
    """

    width: int
    reads: Literal["features", "steps", "logits"] = "features"

    @abstractmethod
    def forward(self, features: list[Any], present: list[Any]) -> Any:
        """One vector a sample (B, D), whatever is missing."""

    def keep(self, present: list[Any]) -> list[Any]:
        """Which modalities are read (B,) of those that are present (B,): all, or in training fewer."""
        return present


class Head(ABC, Checked):
    """Maps fused features to logits: forward((B, D)) -> (B, K)."""

    @abstractmethod
    def forward(self, features: Any) -> Any:
        """Logits (B, K)."""


class Network(ABC, Checked):
    """A whole model: forward(batch) -> logits (B, K).

    Attributes:
        spec: the data; tells the loss which outputs are regression, and their scale. `LitClassifier` sets it on a
            network that does not.
    """

    spec: DataSpec | None = None

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Logits (B, K)."""

    def loss(self, batch: Any) -> Any:
        """What training minimises, a scalar; by default the loss of all outputs over known labels."""
        from ehrdl.models.loss import masked_loss  # here, so that naming a network needs no torch

        return masked_loss(self.forward(batch), batch.label, self.spec)

    def note_encoder(self) -> Encoder | None:
        """The encoder that `optim.pretrain_epochs` pretrains on the training notes; None = there is none."""
        return None

    def pretrained_parameters(self) -> list[Any]:
        """Those that come fitted already, to be tuned at a lower rate."""
        return []

    def start_from(self, others: Sequence[Any]) -> list[list[str]]:
        """Take the weights of fitted networks, for `optim.stages: 2`; a network that cannot leaves this alone.

        Args:
            others: fitted networks, of one modality each.

        Returns:
            The names of the parts that were taken of each.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot start from other networks")

    @property
    def can_start_from_others(self) -> bool:
        """Whether `optim.stages: 2` can fit the network."""
        return type(self).start_from is not Network.start_from

    def started_parameters(self) -> list[Any]:
        """Those that `start_from` took."""
        return []
