"""The settings of a fit: how its network is made and optimised, its model's name and seed, and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ehrdl.batch import DataSpec
from ehrdl.models.base import Network
from ehrdl.options.training import Optim


@dataclass(frozen=True)
class Training:
    """The options for making and optimising networks.

    Attributes:
        make: function that builds a network from a data description.
        optim: the options for optimising the network.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
    """

    make: Callable[[DataSpec], Network]
    optim: Optim = Optim()  # noqa: RUF009 - frozen
    trainer: dict[str, Any] = field(default_factory=dict)

    def network(self, spec: DataSpec) -> Network:
        """Build an unfitted network that reads the modalities of `spec`, and also learns its auxiliary outputs."""
        return self.make(spec.trained(self.optim.auxiliary_weight, self.optim.imbalance))


@dataclass(frozen=True)
class Fit:
    """One fit of a run, given by model and seed, and the paths of its files.

    Attributes:
        folder: the run's folder.
        model: the model's name, such as `fused`.
        seed: random seed of the initial weights, the dropout and the order of the samples.
    """

    folder: Path
    model: str
    seed: int

    @property
    def stem(self) -> str:
        """The name of the fit, with which the names of its files begin, such as `fused-seed0`."""
        return f"{self.model}-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The file of the fitted weights."""
        return self.folder / "checkpoints" / f"{self.stem}.ckpt"

    @property
    def scratch(self) -> Path:
        """The folder of the checkpoints from which a killed fit resumes."""
        return self.folder / "checkpoints" / f".{self.stem}"

    @property
    def pretrained_notes(self) -> Path:
        """The file of the pretrained note encoder, which all fits with the same seed share."""
        return self.folder / "checkpoints" / f".notes-seed{self.seed}.pt"
