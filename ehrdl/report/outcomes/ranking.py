"""Which models a report compares, in which order, and how it words a difference."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo
from ehrdl.schema import BINARY, REGRESSION


def rank(models: dict[str, Any], kind: str = BINARY) -> list[str]:
    """Return the names of the models, the best first: by falling AUROC.

    For a regression output, models are sorted by rising MAE, and by falling R2 if MAE is equal or has no value.

    Args:
        models: the metrics of each model, by the model's name.
        kind: the kind of the output.
    """
    if kind == REGRESSION:
        errors = {name: (table["mae"]["value"], table["r2"]["value"]) for name, table in models.items()}
        return sorted(errors, key=lambda name: (errors[name][0] or 0.0, -(errors[name][1] or 0.0)))
    return sorted(models, key=lambda name: -(models[name]["auroc"]["value"] or 0.0))


def reference_of(differences: dict[str, Any], ranked: list[str], info: RunInfo) -> str:
    """Return the name of the reference model, with which all other models are compared.

    Args:
        differences: the differences between models, by name, such as `fused - lace`. The first name is the reference's.
            If there are none, the best deployable model is returned.
        ranked: the names of the models, the best first.
        info: what is known about the models.
    """
    if differences:
        return str(next(iter(differences))).split(" - ")[0]
    return next(filter(info.deployable, ranked), ranked[0])


def best_baseline(ranked: list[str], reference: str, info: RunInfo) -> str | None:
    """Return the name of the best deployable baseline other than the reference; None if there is none.

    A baseline is any model that is not deep, combined or constant. A model that `info` does not describe counts as a
    deployable baseline.
    """
    left_out = (reference, *info.named("deep", "combined", "constant", among=ranked))
    return next((name for name in ranked if name not in left_out and info.deployable(name)), None)


def differences(table: dict[str, Any], reference: str, kind: str = BINARY) -> list[dict[str, Any]]:
    """Return the table of differences between the reference and each other model, with a verdict in each row.

    The rows that favour the reference most come first.

    Args:
        table: the differences by name, such as `fused - lace`.
        reference: the name of the reference model.
        kind: the kind of the output.
    """
    main, sign = ("mae", 1) if kind == REGRESSION else ("auroc", -1)
    rows = [
        {"other": key.split(" - ", 1)[1], "metrics": metrics, "verdict": verdict(metrics[main], kind)}
        for key, metrics in table.items()
        if key.startswith(f"{reference} - ")
    ]
    return sorted(rows, key=lambda row: sign * (row["metrics"][main]["value"] or 0.0))


def verdict(difference: dict[str, float | None], kind: str = BINARY) -> str:
    """Judge whether the reference is better than another model, by the interval of their difference in AUROC (or MAE).

    Args:
        difference: the difference, reference minus other model, with the ends of its interval, `low` and `high`.
        kind: the kind of the output; for a regression output, a lower MAE is better.

    Returns:
        `better`, `worse`, `not told apart` if the interval includes 0, or `no interval`.
    """
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "no interval"
    if kind == REGRESSION:  # a lower error is better
        low, high = -high, -low
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not told apart"


def by_interest(ranked: list[str], reference: str, baseline: str | None, info: RunInfo) -> list[str]:
    """Return the names of the reference and of all deployable models, in the order of a reader's interest.

    The reference comes first, then the best baseline, then deep and combined models, then all others.
    """
    wanted = [baseline, *info.named("deep", "combined", among=ranked), *ranked]
    usable = [name for name in wanted if name is not None and info.deployable(name)]
    return list(dict.fromkeys([reference, *usable]))
