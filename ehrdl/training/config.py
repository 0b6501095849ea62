"""The `run` and `optim` parts of a configuration. Free of torch, so that the command line can read them quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ehrdl.errors import ConfigError


@dataclass(frozen=True)
class RunOptions:
    """Where a run's results go.

    Attributes:
        name: of the run's folder.
        root: folder that holds the runs.
        overwrite: replace a finished run of the same name.
    """

    name: str
    root: str = "runs"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that is no folder name."""
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"run.name: {self.name!r} is not a folder name")


@dataclass(frozen=True)
class Optim:
    """How the deep models are optimised: AdamW, linear warm-up, then a cosine to zero.

    Attributes:
        lr: peak learning rate.
        weight_decay: of AdamW; not applied to biases, norms and embeddings.
        warmup: share of all steps in which the rate rises.
        selection: `averaged` trains a fixed schedule and keeps the exponential average of the weights, which on small
            tuning sets scores higher held out; `best_tuning` keeps the epoch with the best tuning AUPRC and stops
            early.
        ema_decay: of the average, a step; shortened while the run is young.
        patience: epochs without a better tuning AUPRC before `best_tuning` stops.
        pretrained_lr_factor: the rate of a pretrained note encoder, as a share of `lr`.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    selection: Literal["averaged", "best_tuning"] = "averaged"
    ema_decay: float = 0.99
    patience: int = 3
    pretrained_lr_factor: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.lr <= 0:
            raise ConfigError(f"optim.lr: {self.lr} is not above 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup: {self.warmup} is not a share of the steps in [0, 1)")
        if not 0 < self.ema_decay < 1:
            raise ConfigError(f"optim.ema_decay: {self.ema_decay} is not between 0 and 1")
        if self.selection not in ("averaged", "best_tuning"):
            raise ConfigError(f"optim.selection: {self.selection!r} is not one of averaged, best_tuning")
        if self.patience < 1:
            raise ConfigError(f"optim.patience: {self.patience} is below 1")
