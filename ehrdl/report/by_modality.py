"""The table of results by the inputs that are present, with deep and combined models and the best baseline."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo


def present(scores: dict[str, Any], reference: str, baseline: str | None, info: RunInfo) -> list[dict[str, Any]]:
    """Return each stratum of samples with its size and one row per model.

    The result is empty if all samples are in one stratum, or if no stratum is known. A stratum with too few events (for
    a regression output: samples) has no rows.

    Args:
        scores: an output's part of metrics.json.
        reference: the model that the others are compared with. If no model is deep or combined, it gets a row too.
        baseline: the best model without a deep part.
        info: the known facts about the models.
    """
    strata = scores.get("present") or {}
    ours = info.named("deep", "combined", among=scores["models"]) or [reference]
    names = [name for name in dict.fromkeys((*ours, baseline)) if name is not None]
    if len(strata) < 2:
        return []
    return [
        {
            "name": name,
            "n": part["n"],
            "events": part["events"],
            "rows": [{"name": model, **part["models"][model]} for model in names if part["models"]],
        }
        for name, part in strata.items()
    ]
