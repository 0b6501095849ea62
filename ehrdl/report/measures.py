"""All that metrics.json holds, from PREDICTIONS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ehrdl.info import RunInfo
from ehrdl.metrics import calibrated
from ehrdl.metrics.alarms import rules_of
from ehrdl.metrics.decisions import add_decisions
from ehrdl.metrics.evaluate import evaluate, line_up
from ehrdl.metrics.smooth_calibration import add_smooth
from ehrdl.options.training import ReportOptions
from ehrdl.report.groups import add_groups, add_subgroups
from ehrdl.report.outcomes.ranking import reference_of


def measure(
    predictions: pd.DataFrame,
    options: ReportOptions,
    info: RunInfo,
    on_draws: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Return the content of metrics.json: every metric, alarms, calibration and subgroups.

    Args:
        predictions: the PREDICTIONS table.
        options: the thresholds of alarms, and the groups of patients.
        info: what is known about the models.
        on_draws: function that is called with the number of draws just scored, for a progress bar.

    Raises:
        SchemaError: the table has no held-out rows or only one class, or the models predict different samples.
        ConfigError: an option names a column of groups that does not exist.
    """
    grouped = add_groups(predictions, options)  # before the long work, since it may refuse the options
    metrics = evaluate(predictions, info=info, on_draws=on_draws)
    metrics = add_decisions(metrics, predictions, rules_of(options), info)
    metrics = add_smooth(metrics, line_up(predictions, metrics["split"]), _reference(metrics, info))
    metrics = calibrated.add(metrics, calibrated.recalibrated(predictions, metrics["split"]))
    return add_subgroups(metrics, grouped, options, info)


def _reference(metrics: dict[str, Any], info: RunInfo) -> str | None:
    """Return the model that `evaluate` compared all others with; None if it compared none."""
    scores = next(iter(metrics["outputs"].values()))
    return reference_of(scores["differences"], [], info) if scores["differences"] else None
