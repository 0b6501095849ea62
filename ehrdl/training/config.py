"""Options of a run: where it goes, how models are fitted, tuned and combined. Free of torch: parsing is quick."""

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
        auxiliary_weight: weight in the loss of each output that the task names as auxiliary: learned, never predicted.
            A predicted output has 1.
        pretrain_epochs: passes over the training subjects' notes in which a note encoder from scratch learns to guess
            hidden words, before any label is seen; 0 = none.
        pretrain_lr: peak learning rate of these passes.
        stages: 1 fits every model from the start; 2 fits `notes_only` and `series_only` first, and `fused` from their
            encoders and words.
        stage_lr_factor: the rate in the second stage of what `fused` took over, as a share of its rate in the first.
        hide_observations: augmentation: share of single observations of the series that a training batch does not see.
        value_noise: augmentation: standard deviation of what is added to values in training, in those of their channel.
        shift_hours: augmentation: a sample's series is moved into the past by up to so much in training [h].
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    selection: Literal["averaged", "best_tuning"] = "averaged"
    ema_decay: float = 0.99
    patience: int = 3
    pretrained_lr_factor: float = 0.05
    auxiliary_weight: float = 0.3
    pretrain_epochs: int = 0
    pretrain_lr: float = 3e-3
    stages: Literal[1, 2] = 1
    stage_lr_factor: float = 0.1
    hide_observations: float = 0.0
    value_noise: float = 0.0
    shift_hours: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        for name in ("lr", "pretrain_lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"optim.{name}: {getattr(self, name)} is not above 0")
        if self.auxiliary_weight <= 0:
            raise ConfigError(
                f"optim.auxiliary_weight: {self.auxiliary_weight} is not above 0; name no outputs instead"
            )
        if self.pretrain_epochs < 0:
            raise ConfigError(f"optim.pretrain_epochs: {self.pretrain_epochs} is below 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup: {self.warmup} is not a share of the steps in [0, 1)")
        if not 0 < self.ema_decay < 1:
            raise ConfigError(f"optim.ema_decay: {self.ema_decay} is not between 0 and 1")
        if self.selection not in ("averaged", "best_tuning"):
            raise ConfigError(f"optim.selection: {self.selection!r} is not one of averaged, best_tuning")
        if self.stages not in (1, 2):
            raise ConfigError(f"optim.stages: {self.stages!r} is not one of 1, 2")
        if not 0 < self.stage_lr_factor <= 1:
            raise ConfigError(f"optim.stage_lr_factor: {self.stage_lr_factor} is not in (0, 1]")
        if self.patience < 1:
            raise ConfigError(f"optim.patience: {self.patience} is below 1")
        if not 0 <= self.hide_observations < 1:
            raise ConfigError(f"optim.hide_observations: {self.hide_observations} is not a share in [0, 1)")
        for name in ("value_noise", "shift_hours"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"optim.{name}: {getattr(self, name)} is below 0")


@dataclass(frozen=True)
class Boosting:
    """How the baselines `lightgbm` and `xgboost` are tuned.

    Attributes:
        trials: fits of each, with parameters drawn at random; the one of the lowest loss on the tuning split is kept,
            and the tuning split decides each trial's number of trees.
        samples_per_subject: all classical models are fitted on one draw of at most so many training samples a subject,
            where hourly samples would fill the memory; null = all. Tuning and held-out samples are always all scored.
    """

    trials: int = 20
    samples_per_subject: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        if self.trials < 1:
            raise ConfigError(f"boosting.trials: {self.trials} is below 1")
        if self.samples_per_subject is not None and self.samples_per_subject < 1:
            raise ConfigError(f"boosting.samples_per_subject: {self.samples_per_subject} is below 1; null = all")


@dataclass(frozen=True)
class Combine:
    """Models that are made of the run's models.

    Attributes:
        models: `ensemble`, the equal average of the members over all their seeds, and `stack`, with weights fitted on
            the tuning split; [] = neither.
        members: names of models; null = `fused` (or the one deep model that there is), with `lightgbm` and `xgboost`
            where they are among the baselines.
    """

    models: list[str] = field(default_factory=list)
    members: list[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        for name in self.models:
            if name not in ("ensemble", "stack"):
                raise ConfigError(f"combine.models: {name!r} is not one of ensemble, stack")
        for key in ("models", "members"):
            names = getattr(self, key) or []
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"combine.{key}: {name!r} stands {names.count(name)} times; once is enough")
        if self.members == []:
            raise ConfigError("combine.members: [] is empty; name two models, or leave the key out")
        if self.members and not self.models:
            raise ConfigError("combine.members: are of no model; name ensemble or stack in combine.models")


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


@dataclass(frozen=True)
class Pretraining:
    """How `ehrdl pretrain` teaches an encoder the language of the training notes, by words that it must guess.

    Attributes:
        epochs: passes over the training subjects' notes.
        lr: peak learning rate; null = 5e-5 for an encoder that was pretrained before, 1e-3 for one from scratch.
        tokens: a batch has at most so many tokens, padding included; one chunk that is longer is a batch of its own.
        mask_share: share of the tokens that are to be guessed. Of these 80 % are hidden, 10 % are replaced by a random
            token and 10 % stay (Devlin 2019, arXiv:1810.04805).
        warmup: share of all steps in which the rate rises; then it falls as a cosine to zero.
        weight_decay: of AdamW; not applied to biases, norms and embeddings.
        seed: of the first weights, the order of the notes, the masks and the dropout.
        layers: of a BERT from scratch, as are all below; null = 4.
        width: of its states; null = 256.
        heads: of its attention; null = 4.
        dropout: share of its units dropped in training; null = 0.1.
    """

    epochs: int = 3
    lr: float | None = None
    tokens: int = 8192
    mask_share: float = 0.15
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the key."""
        for name in ("epochs", "tokens", "layers", "width", "heads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"pretrain.{name}: {value} is below 1")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"pretrain.lr: {self.lr} is not above 0")
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"pretrain.mask_share: {self.mask_share} is not between 0 and 1")
        for name in ("warmup", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f"pretrain.{name}: {value} is not a share in [0, 1)")
        if not self.weight_decay >= 0:
            raise ConfigError(f"pretrain.weight_decay: {self.weight_decay} is below 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"pretrain.seed: {self.seed} is not between 0 and 4294967295")
        sizes = self.sizes
        if sizes["width"] % sizes["heads"]:
            raise ConfigError(f"pretrain.heads: {sizes['heads']} does not divide pretrain.width {sizes['width']}")

    @property
    def sizes(self) -> dict[str, int]:
        """Layers, width and heads of an encoder from scratch."""
        return {"layers": self.layers or 4, "width": self.width or 256, "heads": self.heads or 4}

    def require_scratch(self) -> None:
        """Refuse the size of an encoder where one is given that has its own.

        Raises:
            ConfigError: naming the first such option.
        """
        for name in ("layers", "width", "heads", "dropout"):
            value = getattr(self, name)
            if value is not None:
                raise ConfigError(
                    f"pretrain.{name}: {value} is for an encoder from scratch; it does not go with --from"
                )
