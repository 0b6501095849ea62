"""The report's table of results by the inputs that a sample has: notes and series, one of them, or neither."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo


def present(scores: dict[str, Any], reference: str, baseline: str | None, info: RunInfo) -> list[dict[str, Any]]:
    """Return the strata of samples, each with its size and one row of scores per model.

    A stratum is all samples with the same inputs, such as `notes only`. The rows are the deep and combined models and
    the best baseline. The result is empty if there are fewer than two strata. A stratum with too few events (for a
    regression output: samples) has no rows.

    Args:
        scores: the part of metrics.json for one output.
        reference: the model that the others are compared with. If no model is deep or combined, it gets a row.
        baseline: the name of the best baseline; None = there is none.
        info: what is known about the models.
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
