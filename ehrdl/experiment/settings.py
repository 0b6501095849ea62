"""What an experiment is configured with: the keys of a config are these fields.

The parser resolves the annotations of this module, so they name nothing that imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ehrdl.batch import DataSpec
from ehrdl.data.config import DataConfig
from ehrdl.errors import ConfigError
from ehrdl.models.base import Network
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import Boosting, Combine, LoggerOptions, Optim, ReportOptions, RunOptions
from ehrdl.recorded import describe
from ehrdl.tasks.common.base import Task

#: The clinical scores are left out, with a line, where the task is not theirs.
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
        run: where the results go.
        data: where the data come from and how they become batches.
        task: what is predicted.
        model: the network; fitted on all modalities (`fused`) and on each alone (`notes_only`, `series_only`).
        seeds: one fit of the deep models per seed; baselines are fitted once, with the first.
        optim: how the deep models are optimised.
        trainer: arguments of pytorch_lightning.Trainer (accelerator, devices, max_epochs, precision, strategy, …).
        baselines: classical models and clinical scores on the same samples; `…_retrospective` reads the codes of the
            stay itself and is not deployable. `lightgbm` and `xgboost` (extra `boost`) read richer features.
        boosting: how `lightgbm` and `xgboost` are tuned.
        combine: models made of these: an average of deep and boosted ones over all seeds, and a stack.
        logger: Weights & Biases, beside the curves in the run folder.
        baseline_params: parameters of baselines, by the baseline's name, as `gradient_boosting: {max_leaf_nodes: 7}`;
            such a one is fitted once, with these, instead of chosen among its own candidates.
        tune: what `ehrdl tune` searches; a run takes from it only how its values were chosen, for the manifest.
        report: what the report shows of small groups.
        config: the resolved configuration, for the run folder; by default these fields, objects as `class_path` and
            `init_args` (`ehrdl.recorded`).
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
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse seeds that cannot be.

        Raises:
            ConfigError: naming the key.
        """
        if not self.seeds:
            raise ConfigError("seeds: [] is empty; give at least one, such as [0]")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"seeds: {seed} is not between 0 and 4294967295")
            if (n := self.seeds.count(seed)) > 1:
                raise ConfigError(f"seeds: {seed} stands {n} times; the same fit twice says nothing new")

    @classmethod
    def of(cls, objects: Any, config: dict[str, Any]) -> Self:
        """From the objects that a parser made, with the configuration that it made them of."""
        names = [each.name for each in fields(cls) if each.name != "config"]
        return cls(**{name: getattr(objects, name) for name in names}, config=config)

    def resolved(self) -> dict[str, Any]:
        """The configuration as plain values."""
        if self.config is not None:
            return self.config
        found: dict[str, Any] = describe(
            {each.name: getattr(self, each.name) for each in fields(self) if each.name != "config"}
        )
        return found
