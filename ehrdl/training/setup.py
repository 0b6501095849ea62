"""The settings of a fit: how networks are made and optimised, and which fit of a run it is."""

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
        make: function that makes the network for a spec.
        optim: the options for optimising the network.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
    """

    make: Callable[[DataSpec], Network]
    optim: Optim = Optim()  # noqa: RUF009 - frozen
    trainer: dict[str, Any] = field(default_factory=dict)

    def network(self, spec: DataSpec) -> Network:
        """Make an unfitted network that reads what `spec` allows, and also learns the auxiliary outputs."""
        return self.make(spec.trained(self.optim.auxiliary_weight))


@dataclass(frozen=True)
class Fit:
    """One fit of a run, and the places of its files.

    Attributes:
        folder: the run's folder.
        model: the model's name, such as `fused`.
        seed: random seed of its weights, its dropout and the order of its samples.
    """

    folder: Path
    model: str
    seed: int

    @property
    def stem(self) -> str:
        """The stem of its files' names."""
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
        """The file of the seed's pretrained note encoder, needed until the last fit of the seed is done."""
        return self.folder / "checkpoints" / f".notes-seed{self.seed}.pt"
