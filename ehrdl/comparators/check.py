"""Checks, before any data are read, of a run's configuration and of the libraries that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.comparators.baseline import check_baselines, check_params
from ehrdl.comparators.combine import check_members
from ehrdl.options.training import Combine
from ehrdl.processes.trainer import check_trainer
from ehrdl.training.variants import DEEP


def check_config(
    task: str,
    trainer: dict[str, Any],
    baselines: list[str],
    default: list[str],
    combine: Combine,
    params: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """Check the parts of a configuration that do not depend on the data.

    Args:
        task: the task's name.
        trainer: arguments of the Lightning Trainer.
        baselines: the configured baselines.
        default: the default baselines.
        combine: the options for models that combine other models of the run.
        params: parameters of baselines, by the name of the baseline.

    Returns:
        The arguments of the Trainer with ehrdl's defaults, and the baselines that suit this task.

    Raises:
        ConfigError: a value does not pass; the message names its key.
    """
    baselines = check_baselines(baselines, task, default)
    check_params(params)
    trainer = check_trainer(trainer)
    check_members(combine.members or [], [*DEEP, *baselines])
    return trainer, baselines
