"""What a fit is told: how networks are made and optimised, and which fit of a run it is."""

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
    """How networks are made and optimised.

    Attributes:
        make: makes the network for a spec.
        optim: how it is optimised.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
    """

    make: Callable[[DataSpec], Network]
    optim: Optim = Optim()  # noqa: RUF009 - frozen
    trainer: dict[str, Any] = field(default_factory=dict)

    def network(self, spec: DataSpec) -> Network:
        """An unfitted network for what `spec` lets it read, with the auxiliary outputs that are learned beside."""
        return self.make(spec.trained(self.optim.auxiliary_weight))


@dataclass(frozen=True)
class Fit:
    """One fit of a run, and where its files are.

    Attributes:
        folder: the run's.
        model: its name, such as `fused`.
        seed: of its weights, its dropout and the order of its samples.
    """

    folder: Path
    model: str
    seed: int

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.model}-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The file of the fitted weights."""
        return self.folder / "checkpoints" / f"{self.stem}.ckpt"

    @property
    def scratch(self) -> Path:
        """The folder of what a killed fit resumes from."""
        return self.folder / "checkpoints" / f".{self.stem}"

    @property
    def pretrained_notes(self) -> Path:
        """The seed's pretrained note encoder; needed only until the seed's last fit is done."""
        return self.folder / "checkpoints" / f".notes-seed{self.seed}.pt"
