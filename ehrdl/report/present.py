"""The table of results by what was present: the deep and combined models and the best baseline in each stratum."""

from __future__ import annotations

from typing import Any

from ehrdl.metrics.evaluate import COMBINED, DEEP


def present(scores: dict[str, Any], baseline: str | None) -> list[dict[str, Any]]:
    """Each stratum with its size and a row a model; empty where all samples are of one stratum, or nobody knows.

    A stratum with too few events (samples, of a regression output) has no rows.

    Args:
        scores: an output's part of metrics.json.
        baseline: the best model that is not deep.
    """
    strata = scores.get("present") or {}
    names = [name for name in (*DEEP, *COMBINED, baseline) if name in scores["models"]]
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
