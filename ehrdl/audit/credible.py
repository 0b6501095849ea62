"""A check of the results: does a model score more than any honest model is known to?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified


class Scored(NamedTuple):
    """The AUROC of a model on an output that has a highest credible one."""

    output: str
    model: str
    auroc: float
    limit: float


def scored(metrics: dict[str, Any], ceiling: Callable[[str], float | None]) -> list[Scored]:
    """Return the AUROC of every model on every output for which the highest credible one is known.

    Simulated outcomes are left out, since the best possible AUROC is known for them.

    Args:
        metrics: the result of `evaluate`.
        ceiling: a function that returns the highest credible AUROC of an output; None = unknown.
    """
    found = []
    for output, scores in metrics["outputs"].items():
        limit = ceiling(output)
        if scores["bayes_auroc"] is None and limit is not None and scores["prevalence"] is not None:
            for name, values in scores["models"].items():
                if values["auroc"]["value"] is not None:
                    found.append(Scored(output, name, values["auroc"]["value"], limit))
    return found


def check_credible(found: list[Scored]) -> Check:
    """Return the check `credible` of the result of `scored`."""
    if not found:
        return not_verified("credible", "The outcome is simulated, or the task names no highest credible AUROC.")
    worst = max(found, key=lambda one: one.auroc - one.limit)
    return Check("credible", FAIL if worst.auroc > worst.limit else PASS, worst._asdict())


def lines_above(found: list[Scored]) -> list[str]:
    """Return a line of warning for each AUROC that is above the highest credible one."""
    return [
        f"{one.output}: the AUROC {one.auroc:.3f} of {one.model} is above {one.limit}, more than any honest "
        f"model has reached: look for a leak before you believe it"
        for one in found
        if one.auroc > one.limit
    ]
