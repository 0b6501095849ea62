"""The table of results by what was present: the deep and combined models and the best baseline in each stratum."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo


def present(scores: dict[str, Any], reference: str, baseline: str | None, info: RunInfo) -> list[dict[str, Any]]:
    """Each stratum with its size and a row a model; empty where all samples are of one stratum, or nobody knows.

    A stratum with too few events (samples, of a regression output) has no rows.

    Args:
        scores: an output's part of metrics.json.
        reference: the model that the others are compared with; has a row where no model is known to be deep.
        baseline: the best model that is not deep.
        info: what is known of the models.
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
