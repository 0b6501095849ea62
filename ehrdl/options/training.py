"""Options of a run: its folder, and how models are fitted, tuned and combined. Torch is not imported, for speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ehrdl.errors import ConfigError
from ehrdl.options.bounds import (
    Bound,
    Count,
    Distinct,
    Filled,
    FolderName,
    FolderPath,
    Layers,
    Location,
    Options,
    Rate,
    Rule,
    Seed,
    Share,
    Width,
)

#: How the risks of each model are recalibrated on the tuning split (`ehrdl.metrics.calibrators`).
Calibrate = Literal["none", "platt", "temperature", "isotonic", "prior"]
#: What is done about a rare outcome when models are fitted.
Imbalance = Literal["none", "weighted", "focal", "balanced"]


@dataclass(frozen=True)
class RiskOptions:
    """What the fit of a model does about rare outcomes, and how its risks are recalibrated on the tuning split."""

    imbalance: Imbalance = "none"
    calibrate: Calibrate = "platt"


@dataclass(frozen=True)
class RunOptions(Options, key="run"):
    """The folder of a run's results.

    Attributes:
        name: the name of the run's folder.
        root: the folder that holds the runs.
        overwrite: whether to replace a finished run of the same name.
    """

    name: Annotated[str, FolderName()]
    root: Annotated[str, FolderPath()] = "runs"
    overwrite: bool = False


@dataclass(frozen=True)
class Optim(Options, key="optim"):
    """The optimisation of deep models: AdamW with a linear warm-up, then a cosine decay to zero.

    Attributes:
        lr: peak learning rate.
        weight_decay: weight decay of AdamW; not applied to biases, norms and embeddings.
        warmup: share of all training steps in which the learning rate rises.
        selection: the weights that are kept. `averaged` trains to the end of a fixed schedule and keeps the exponential
            average of the weights. With small tuning sets this scores higher on held-out patients. `best_tuning` stops
            early and keeps the weights of the epoch with the best tuning AUPRC (R2 for a regression output; the mean
            over outputs).
        ema_decay: decay of the exponential average per training step. Lower it for a short run.
        patience: number of epochs without a better tuning score before `best_tuning` stops.
        pretrained_lr_factor: learning rate of a pretrained note encoder, as a share of `lr`.
        auxiliary_weight: weight in the loss of each auxiliary output of the task. Such an output is learned but never
            predicted. A predicted output has weight 1.
        pretrain_epochs: number of passes over the training subjects' notes before any label is seen; 0 = none. In these
            passes, a note encoder from scratch learns to guess hidden words.
        pretrain_lr: peak learning rate in the passes of `pretrain_epochs`.
        stages: number of stages of training. 1 fits every model from scratch. 2 fits `notes_only` and `series_only`
            first. `fused` then starts from their encoders, linear heads and linear models of words.
        stage_lr_factor: for two stages: learning rate of the parts that `fused` took over from the other models, as a
            share of the rate at which these parts were trained in the first stage.
        hide_observations: augmentation of training data: probability with which each observation of a time series is
            hidden, independently of the others.
        value_noise: augmentation of training data: standard deviation of the noise added to values, in units of the
            channel's standard deviation.
        shift_hours: augmentation of training data: longest time by which the time series of a sample is moved into the
            past [h].
        imbalance: what is done about a rare outcome, for each binary output. `weighted` weights samples with the
            outcome by n without / n with it, counted in the training split. `focal` uses the focal loss with gamma = 2
            (Lin et al., ICCV 2017), and does not apply to baselines. `balanced` draws training samples with replacement
            so that both classes are equally frequent. `weighted` and `balanced` also apply to the fitted baselines. The
            scores of a model fitted in this way are not risks, so its `prob` is recalibrated on the tuning split. Each
            of these mostly costs calibration and gains nothing: see the table in the results.
    """

    lr: Rate = 1e-3
    weight_decay: Annotated[float, Bound("[0, 10]")] = 0.01
    warmup: Share = 0.1
    selection: Literal["averaged", "best_tuning"] = "averaged"
    ema_decay: Annotated[float, Bound("(0, 1)")] = 0.99
    patience: Count = 3
    pretrained_lr_factor: Annotated[float, Bound("[0, 1]")] = 0.05
    auxiliary_weight: Annotated[float, Bound("(0, 1000]", "name no outputs instead")] = 0.3
    pretrain_epochs: Annotated[int, Bound("[0, inf)")] = 0
    pretrain_lr: Rate = 3e-3
    stages: Literal[1, 2] = 1
    stage_lr_factor: Annotated[float, Bound("(0, 1]")] = 0.1
    hide_observations: Share = 0.0
    value_noise: Annotated[float, Bound("[0, 100]")] = 0.0
    shift_hours: Annotated[float, Bound("[0, 1000000]")] = 0.0
    imbalance: Imbalance = "none"


@dataclass(frozen=True)
class Boosting(Options, key="boosting"):
    """How the baselines `lightgbm` and `xgboost` are tuned.

    Attributes:
        trials: number of fits of each model, with parameters drawn at random. The fit with the lowest loss on the
            tuning split is kept. The tuning split also decides each fit's number of trees.
        samples_per_subject: largest number of training samples per subject, for all classical models; null = no limit.
            If a subject has more, some are drawn at random once. A limit helps if hourly samples would fill the memory.
            All tuning and held-out samples are always scored.
    """

    trials: Count = 20
    samples_per_subject: Annotated[int, Bound("[1, inf)", "null = all")] | None = None


@dataclass(frozen=True)
class Combine(Options, key="combine"):
    """The models that combine the predictions of other models of the run.

    Attributes:
        models: the combined models. `ensemble` is the average of the members over all their seeds, with equal weights.
            `stack` has weights fitted on the tuning split. [] = neither.
        members: names of the models to combine; null = `fused` (or the only deep model), with `lightgbm` and `xgboost`
            if they are among the baselines.
    """

    models: list[Literal["ensemble", "stack"]] = field(default_factory=list)
    members: Annotated[list[str], Filled(1, "name two models, or leave the key out")] | None = None

    def __post_init__(self) -> None:
        """Refuse members without a combined model. The error names the key."""
        super().__post_init__()
        if self.members and not self.models:
            raise ConfigError("combine.members: are of no model; name ensemble or stack in combine.models")


class ProjectName(Rule):
    """The rule that a text is a valid name of a project in Weights & Biases (W&B)."""

    def broken(self, value: str) -> str | None:
        """Describe why the text is not a project name; None if it is one."""
        return "is not a project name: it has one of /\\#?%:" if set(value) & set("/\\#?%:") else None


@dataclass(frozen=True)
class LoggerOptions(Options, key="logger"):
    """Whether and how to send a run to Weights & Biases (W&B).

    The learning curves are always written to `curves/` in the run folder.

    Attributes:
        wandb: whether to send the run to W&B: its configuration without local paths, its learning curves and its
            metrics.
        artifacts: whether to send the report and the best checkpoint too. They are made from patients' data, so do this
            only if the data use agreement allows it.
        project: the W&B project.
        entity: the W&B user or team; null = the account's default.
        mode: the mode of W&B. `offline` needs no network and writes files under the run folder, for `wandb sync`.
        group: the W&B group; null = the run's name.
        tags: the W&B tags.
    """

    wandb: bool = False
    artifacts: bool = False
    project: Annotated[str, ProjectName()] = "ehrdl"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReportOptions(Options, key="report"):
    """The options of `report.html`.

    Attributes:
        min_count: smallest number of patients in a group that is shown. Smaller groups are hidden, and so is every
            number from which a hidden number could be computed. 1 = all groups are shown. The run's JSON files are
            exact.
        risks: thresholds of the risk at which alarms are scored.
        sensitivity: sensitivity that a further threshold must reach on the tuning samples; null = none.
        alarms_per_100: most alarms per 100 samples that a further threshold may raise on the tuning samples; null =
            none.
        groups: columns of groups whose results are shown, and pairs of them, such as `sex x race`; null = all columns,
            and the pairs of sex, age_band and race.
        group_file: CSV or Parquet file with further groups: a column `subject_id` or `sample_id`, and one column per
            grouping; null = none.
    """

    min_count: Annotated[int, Bound("[1, inf)", "1 shows all groups")] = 10
    risks: Annotated[list[Annotated[float, Bound("(0, 1)")]], Filled(), Distinct()] = field(
        default_factory=lambda: [0.1, 0.2]
    )
    sensitivity: Annotated[float, Bound("(0, 1]")] | None = 0.8
    alarms_per_100: Annotated[float, Bound("(0, 100]")] | None = 10.0
    groups: Annotated[list[str], Filled(), Distinct()] | None = None
    group_file: Location | None = None


@dataclass(frozen=True)
class Pretraining(Options, key="pretrain"):
    """The options of `ehrdl pretrain`, which trains a note encoder to guess hidden words of the training notes.

    Attributes:
        epochs: number of passes over the training subjects' notes.
        lr: peak learning rate; null = 5e-5 for an encoder that is already pretrained, 1e-3 for one from scratch.
        tokens: largest number of tokens per batch, padding included. A single longer chunk is a batch of its own.
        mask_share: share of the tokens that the encoder must guess. Of these, 80 % are hidden, 10 % are replaced by a
            random token and 10 % stay (Devlin 2019, arXiv:1810.04805).
        warmup: share of all training steps in which the learning rate rises. After that, it falls as a cosine to zero.
        weight_decay: weight decay of AdamW; not applied to biases, norms and embeddings.
        seed: random seed of the initial weights, the order of the notes, the masks and the dropout.
        layers: number of layers of a BERT from scratch; null = 4. This option, `width`, `heads` and `dropout` apply
            only to a BERT from scratch.
        width: width of the hidden states; null = 256.
        heads: number of attention heads; null = 4.
        dropout: share of the units that are dropped in training; null = 0.1.
    """

    epochs: Count = 3
    lr: Rate | None = None
    tokens: Count = 8192
    mask_share: Annotated[float, Bound("(0, 1)")] = 0.15
    warmup: Share = 0.1
    weight_decay: Annotated[float, Bound("[0, 10]")] = 0.01
    seed: Seed = 0
    layers: Layers | None = None
    width: Width | None = None
    heads: Width | None = None
    dropout: Share | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid option, and a width that the number of heads does not divide."""
        super().__post_init__()
        sizes = self.sizes
        if sizes["width"] % sizes["heads"]:
            raise ConfigError(f"pretrain.heads: {sizes['heads']} does not divide pretrain.width {sizes['width']}")

    @property
    def sizes(self) -> dict[str, int]:
        """The `layers`, `width` and `heads` of an encoder from scratch, with defaults in place of null."""
        return {"layers": self.layers or 4, "width": self.width or 256, "heads": self.heads or 4}

    def require_scratch(self) -> None:
        """Check that no option for an encoder from scratch is set. A pretrained encoder has its own size and dropout.

        Raises:
            ConfigError: `layers`, `width`, `heads` or `dropout` is set. The message names the first such option.
        """
        for name in ("layers", "width", "heads", "dropout"):
            value = getattr(self, name)
            if value is not None:
                raise ConfigError(
                    f"pretrain.{name}: {value} is for an encoder from scratch; it does not go with --from"
                )
