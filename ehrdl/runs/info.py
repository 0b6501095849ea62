"""Reads the descriptions of models and outputs from a run's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.info import ModelInfo, RunInfo
from ehrdl.metrics.challenges import utility_named


def run_info(manifest: Mapping[str, Any]) -> RunInfo:
    """Return the descriptions of models and outputs, and the thresholds, in a manifest. A missing part stays empty.

    Raises:
        KeyError, TypeError, ValueError: the content is not as a run writes it.
    """
    models = [ModelInfo.from_dict(values) for values in manifest.get("models") or []]
    outputs = manifest.get("outputs") or []
    return RunInfo(
        models={info.name: info for info in models},
        units={str(output["name"]): str(output["unit"]) for output in outputs},
        utilities={
            str(output["name"]): utility_named(str(output["utility"])) for output in outputs if output.get("utility")
        },
        thresholds=manifest.get("thresholds"),
    )
