"""The settings of an experiment. Their fields are the keys of a config.

The parser resolves the annotations of this module, so none of them may need an import of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self, get_args

from ehrdl.batch import DataSpec
from ehrdl.data.config import DataConfig
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import (
    Boosting,
    Calibrate,
    Combine,
    LoggerOptions,
    Optim,
    ReportOptions,
    RiskOptions,
    RunOptions,
)
from ehrdl.recorded import describe
from ehrdl.tasks.common.base import Task

#: The default baselines. A clinical score that does not apply to the task is left out, and a message says so.
BASELINES = [
    "prevalence",
    "logistic_regression",
    "random_forest",
    "gradient_boosting",
    "bag_of_words",
    "tabular_and_words",
    "lace",
    "hospital",
    "lace_retrospective",
    "hospital_retrospective",
]


@dataclass(frozen=True)
class Settings:
    """The configuration of an experiment.

    Attributes:
        run: the folder of the results.
        data: the source of the data, and how they become batches.
        task: the task, which defines what is predicted, for whom and when.
        model: a function that makes the network from a `DataSpec`. The network is fitted on all modalities (`fused`)
            and on each alone (`notes_only`, `series_only`).
        seeds: the random seeds. Deep models are fitted once per seed, baselines once with the first seed.
        optim: how the deep models are optimised.
        trainer: arguments of pytorch_lightning.Trainer (accelerator, devices, max_epochs, precision, strategy, …).
        baselines: classical models and clinical scores on the same samples. `…_retrospective` reads the codes of the
            stay itself and is not deployable. `lightgbm` and `xgboost` (extra `boost`) read richer features.
        boosting: how `lightgbm` and `xgboost` are tuned.
        combine: models made of other models: an average of deep and boosted models over all seeds, and a stack.
        logger: whether to send the run to Weights & Biases. The run folder always has the learning curves.
        baseline_params: parameters of baselines, by the baseline's name. An example is
            `gradient_boosting: {max_leaf_nodes: 7}`. This baseline is then fitted once with these values, and none of
            its default candidates is tried.
        tune: the search of `ehrdl tune`. `ehrdl train` only copies `tune.chosen` into the run's manifest.
        report: how the report treats small groups.
        audit: whether the fitted run is probed for leaks (`leak_audit.json`, and a table in the report).
        calibrate: how risks are recalibrated on the tuning split, for `prob_calibrated`. `platt` fits intercept and
            slope on the logit, `temperature` the slope alone, `prior` the intercept alone. `isotonic` fits a rising
            curve. It overfits a tuning split with fewer than about 1,000 samples or 100 events. `none` leaves
            `prob_calibrated` empty.
        config: the resolved configuration, as written to the run folder. None = it is made from the other fields, with
            objects as `class_path` and `init_args` (`ehrdl.recorded`).
    """

    run: RunOptions
    data: DataConfig
    task: Task
    model: Callable[[DataSpec], Network]
    seeds: list[int] = field(default_factory=lambda: [0])
    optim: Optim = Optim()  # noqa: RUF009 - frozen
    trainer: dict[str, Any] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=lambda: [*BASELINES])
    boosting: Boosting = Boosting()  # noqa: RUF009 - frozen
    combine: Combine = field(default_factory=Combine)
    logger: LoggerOptions = field(default_factory=LoggerOptions)
    baseline_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    tune: TuneOptions = field(default_factory=TuneOptions)
    report: ReportOptions = ReportOptions()  # noqa: RUF009 - frozen
    audit: bool = True
    calibrate: Calibrate = "platt"
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse invalid seeds, and a method of recalibration that does not exist.

        Raises:
            ConfigError: no seed is given, a seed is out of range or repeated, or `calibrate` is no method.
        """
        if self.calibrate not in (methods := get_args(Calibrate)):
            raise ConfigError(f"calibrate: {self.calibrate!r} is not one of {', '.join(methods)}")
        if not self.seeds:
            raise ConfigError("seeds: [] is empty; give at least one, such as [0]")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"seeds: {seed} is not between 0 and 4294967295")
            if (n := self.seeds.count(seed)) > 1:
                raise ConfigError(f"seeds: {seed} stands {n} times; the same fit twice says nothing new")

    @classmethod
    def of(cls, objects: Any, config: dict[str, Any]) -> Self:
        """Make the settings from a parsed configuration.

        Args:
            objects: the objects that the configuration describes, from `Parser.instantiate`.
            config: the resolved configuration as plain values.
        """
        names = [each.name for each in fields(cls) if each.name != "config"]
        return cls(**{name: getattr(objects, name) for name in names}, config=config)

    @property
    def risks(self) -> RiskOptions:
        """What fits do about rare outcomes, and how risks are recalibrated."""
        return RiskOptions(self.optim.imbalance, self.calibrate)

    def resolved(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values, for `config.yaml` of the run."""
        if self.config is not None:
            return self.config
        found: dict[str, Any] = describe(
            {each.name: getattr(self, each.name) for each in fields(self) if each.name != "config"}
        )
        return found
