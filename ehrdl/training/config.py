"""The `run`, `optim` and `logger` parts of a configuration. Free of torch: the command line reads them quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
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
            tuning sets scores higher held out; `best_tuning` keeps the epoch with the best tuning AUPRC (R2 for a
            regression output; the mean over outputs) and stops
            early.
        ema_decay: of the average, a step; shortened while the run is young.
        patience: epochs without a better tuning score before `best_tuning` stops.
        pretrained_lr_factor: the rate of a pretrained note encoder, as a share of `lr`.
        pretrain_epochs: passes over the training subjects' notes in which the note encoder learns to guess hidden
            words, before any label is seen; 0 = none.
        pretrain_lr: peak learning rate of these passes.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    selection: Literal["averaged", "best_tuning"] = "averaged"
    ema_decay: float = 0.99
    patience: int = 3
    pretrained_lr_factor: float = 0.05
    pretrain_epochs: int = 0
    pretrain_lr: float = 3e-3

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        for name in ("lr", "pretrain_lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"optim.{name}: {getattr(self, name)} is not above 0")
        if self.pretrain_epochs < 0:
            raise ConfigError(f"optim.pretrain_epochs: {self.pretrain_epochs} is below 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup: {self.warmup} is not a share of the steps in [0, 1)")
        if not 0 < self.ema_decay < 1:
            raise ConfigError(f"optim.ema_decay: {self.ema_decay} is not between 0 and 1")
        if self.selection not in ("averaged", "best_tuning"):
            raise ConfigError(f"optim.selection: {self.selection!r} is not one of averaged, best_tuning")
        if self.patience < 1:
            raise ConfigError(f"optim.patience: {self.patience} is below 1")


@dataclass(frozen=True)
class LoggerOptions:
    """Where learning curves go beside `curves/` in the run folder, which is always written.

    Attributes:
        wandb: send the run to Weights & Biases: configuration, curves, metrics, the report and the best checkpoint.
        project: of W&B.
        entity: user or team of W&B; null = the account's default.
        mode: `offline` writes files under the run folder, for `wandb sync`, and needs no network.
        group: of W&B; null = the run's name.
        tags: of W&B.
    """

    wandb: bool = False
    project: str = "ehrdl"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.mode not in ("online", "offline"):
            raise ConfigError(f"logger.mode: {self.mode!r} is not one of online, offline")
        if not self.project or set(self.project) & set("/\\#?%:"):
            raise ConfigError(
                f"logger.project: {self.project!r} is not a project name: it is empty or has one of /\\#?%:"
            )
