"""Checks of a run's configuration and of the libraries that it needs, before any data are read."""

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
    """Refuse a configuration that would be wrong for any data.

    Args:
        task: the task's name.
        trainer: arguments of the Trainer.
        baselines: the configured baselines.
        default: the baselines if the user set none.
        combine: the options for models made from other models.
        params: parameters of baselines, by name.

    Returns:
        The arguments of the Trainer with our defaults, and the baselines that fit this task.

    Raises:
        ConfigError: a value is refused; the message names the key.
    """
    baselines = check_baselines(baselines, task, default)
    check_params(params)
    trainer = check_trainer(trainer)
    check_members(combine.members or [], [*DEEP, *baselines])
    return trainer, baselines
