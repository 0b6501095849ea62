"""The report's content for one binary output: headline, tables, differences, curves and subgroups, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ehrdl.info import RunInfo
from ehrdl.metrics.by_modality import PRESENT
from ehrdl.metrics.calibration import equal_bins
from ehrdl.metrics.catalogue import METRICS
from ehrdl.metrics.decisions import decision_curve
from ehrdl.metrics.discrimination import Floats, auroc, pr_curve, roc_curve
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.outcomes.alarms import alarm_tables, utility_rows
from ehrdl.report.outcomes.by_modality import present
from ehrdl.report.outcomes.subgroups import count_patients, grouped, one_group
from ehrdl.report.suppress import Shown, hide_groups, joined, joined_histogram, patients
from ehrdl.schema import BINARY, REGRESSION

N_DRAWN = 6
MIN_EVENTS = 10


def describe(outcome: Outcome, scores: dict[str, Any], shown: Shown = Shown()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Return everything that the report shows about one binary output.

    No number is shown if too few patients had the outcome, or if too few did not have it.

    Args:
        outcome: the output's predictions. All models have the same samples in the same order.
        scores: the part of metrics.json for this output.
        shown: the size of the smallest group that may be shown, and what is known about the models.
    """
    info = shown.info
    if min(count_patients(outcome, True)[1:]) < shown.min_count:
        return hidden_output(outcome, f"fewer than {shown.min_count} patients had this outcome, or had it not", shown)
    ranked = rank(scores["models"])
    reference = reference_of(scores["differences"], ranked, info)
    rows = [_row(name, scores["models"][name], reference, info) for name in ranked]
    baseline = best_baseline(ranked, reference, info)
    facts = ("n", "events", "subjects", "draws", "prevalence", "bayes_auroc")
    strata = strata_shown(present(scores, reference, baseline, info), outcome, shown)
    return {
        "name": outcome.output,
        **{key: scores.get(key) for key in facts},
        "unknown": shown.count(outcome.unknown),
        "hidden": "",
        "min_count": shown.min_count,
        "kind": BINARY,
        "ours": shown.ours,
        "metrics": list(METRICS),
        "reference": reference,
        "headline": _headline(scores, reference, baseline),
        "models": rows,
        "not_deployable": [name for name in ranked if not info.deployable(name) and info.kind(name) != "truth"],
        "constant": info.named("constant", among=ranked),
        "differences": differences(scores["differences"], reference),
        "curves": _curves(outcome, _drawn(ranked, reference, baseline, info), reference, baseline, shown),
        "alarms": alarm_tables(scores, outcome, by_interest(ranked, reference, baseline, info), shown),
        "present": strata,
        "utility": utility_rows(scores, ranked),
        "one_group": one_group(outcome),
        "groups": grouped(outcome, lambda name, member: _group(outcome, reference, name, member), shown, strata),
    }


def hidden_output(outcome: Outcome, why: str, shown: Shown) -> dict[str, Any]:
    """Return the content of the report for an output with hidden results: only the reason why they are hidden.

    Args:
        outcome: the output's predictions.
        why: the reason.
        shown: the size of the smallest group that may be shown, and what is known about the models.
    """
    return {"name": outcome.output, "kind": outcome.kind, "ours": shown.ours, "hidden": why}


def strata_shown(strata: list[dict[str, Any]], outcome: Outcome, shown: Shown) -> list[dict[str, Any]]:
    """Hide small groups in the table of results by the inputs that a sample has.

    Args:
        strata: the table, from `ehrdl.report.outcomes.by_modality.present`.
        outcome: the output's predictions.
        shown: the size of the smallest group that may be shown.
    """
    rows = [row | {"patients": count_patients(outcome, outcome.rows[PRESENT] == row["name"])} for row in strata]
    return hide_groups(rows, shown)


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


def _row(name: str, metrics: dict[str, Any], reference: str, info: RunInfo) -> dict[str, Any]:
    role = "reference" if name == reference else "" if info.deployable(name) else "ceiling"
    per_seed = [value for value in metrics["auroc"]["per_seed"] if value is not None]
    return {
        "name": name,
        "kind": info.models[name].description if name in info.models else "",
        "role": role,
        "seeds": len(metrics["auroc"]["per_seed"]),
        "auroc_over_seeds": [min(per_seed), max(per_seed)] if len(per_seed) > 1 else None,
        "metrics": metrics,
    }


def _headline(scores: dict[str, Any], reference: str, baseline: str | None) -> dict[str, Any]:
    models, ceiling = scores["models"], scores.get("bayes_auroc")
    value = models[reference]["auroc"]["value"]
    reached = (value - 0.5) / (ceiling - 0.5) if ceiling and ceiling > 0.5 else None
    difference = scores["differences"].get(f"{reference} - {baseline}", {}).get("auroc")
    return {
        "model": reference,
        "auroc": models[reference]["auroc"],
        "auprc": models[reference]["auprc"],
        "baseline": baseline,
        "baseline_auroc": models[baseline]["auroc"] if baseline else None,
        "difference": difference,
        "verdict": verdict(difference) if difference else None,
        "share_of_ceiling": reached,
    }


def by_interest(ranked: list[str], reference: str, baseline: str | None, info: RunInfo) -> list[str]:
    """Return the names of the reference and of all deployable models, in the order of a reader's interest.

    The reference comes first, then the best baseline, then deep and combined models, then all others.
    """
    wanted = [baseline, *info.named("deep", "combined", among=ranked), *ranked]
    usable = [name for name in wanted if name is not None and info.deployable(name)]
    return list(dict.fromkeys([reference, *usable]))


def _drawn(ranked: list[str], reference: str, baseline: str | None, info: RunInfo) -> list[str]:
    """Choose at most `N_DRAWN` models to draw, the true risk among them. Constant models have no curve."""
    truth = info.named("truth", among=ranked)
    names = by_interest(ranked, reference, baseline, info)
    return [name for name in names if info.kind(name) not in ("constant", "truth")][: N_DRAWN - len(truth)] + truth


def _curves(outcome: Outcome, drawn: list[str], reference: str, baseline: str | None, show: Shown) -> dict[str, Any]:
    """Return the points of the plots. ROC and PR are averaged over seeds; calibration pools all seeds."""
    label, calibrated = outcome.label, outcome.prob_calibrated[reference]
    lines = [
        {"name": name, "roc": _mean_roc(label, outcome.prob[name]), "pr": _mean_pr(label, outcome.prob[name])}
        for name in drawn
    ]
    shown = {name: outcome.prob[name] for name in (reference, baseline) if name}
    if not np.isnan(calibrated).any() and not np.allclose(calibrated, outcome.prob[reference], atol=1e-3):
        shown[f"{reference}, recalibrated"] = calibrated
    truth = show.info.named("truth", among=outcome.prob)
    shown |= {name: outcome.prob[name] for name in truth}
    subject = outcome.rows["subject_id"].to_numpy()
    calibration = [{"name": name, **_calibration(label, prob, subject, show.min_count)} for name, prob in shown.items()]
    return {
        "reference": reference,
        "truth": truth,
        "prevalence": float(label.mean()),
        "lines": lines,
        "calibration": calibration,
        "decision": _decision(outcome, reference, baseline, show.info),
        "risk": _risk(label, outcome.prob[reference], subject, show.min_count),
    }


def _mean_roc(label: Floats, prob: Floats) -> dict[str, list[float]]:
    grid = np.linspace(0, 1, 101)
    rates = [np.interp(grid, *roc_curve(label, row)) for row in prob]
    return {"x": [0.0, *grid.tolist()], "y": [0.0, *np.mean(rates, axis=0).tolist()]}


def _mean_pr(label: Floats, prob: Floats) -> dict[str, list[float]]:
    grid = np.linspace(0.01, 1, 100)
    rates = []
    for row in prob:
        recall, precision = pr_curve(label, row)
        rates.append(precision[np.searchsorted(recall, grid - 1e-12)])
    return {"x": grid.tolist(), "y": np.mean(rates, axis=0).tolist()}


def _decision(outcome: Outcome, reference: str, baseline: str | None, info: RunInfo) -> dict[str, Any]:
    """Return the decision curves of the reference, the best baseline and the clinical scores, and of an alarm for all.

    The curves are averaged over seeds. The thresholds reach as far as a reader may want to act: to three times the
    prevalence, or to the highest risks of the reference.
    """
    label, prevalence = outcome.label, float(outcome.label.mean())
    top = float(np.clip(max(3 * prevalence, np.quantile(outcome.prob[reference], 0.99)), 0.05, 0.95))
    grid = np.linspace(0, top, 101)[1:]
    scores = [name for name in info.named("score", among=outcome.prob) if info.deployable(name)]
    names = dict.fromkeys(name for name in (reference, baseline, *scores[:2]) if name)
    return {
        "x": grid.tolist(),
        "all": (prevalence - (1 - prevalence) * grid / (1 - grid)).tolist(),
        "lines": [
            {"name": name, "y": np.mean([decision_curve(label, row, grid) for row in outcome.prob[name]], 0).tolist()}
            for name in names
        ],
    }


def _calibration(label: Floats, prob: Floats, subject: Any, min_count: int) -> dict[str, list[float]]:
    """Return the calibration curve, with an interval for each observed share (Wilson, JASA 22 (1927) 209).

    Bins are joined if few patients had the outcome, or if few did not.
    """
    truth, score, who = np.tile(label, len(prob)), prob.ravel(), np.tile(subject, len(prob))

    def enough(rows: Any) -> bool:
        return min_count < 2 or min(patients(who, rows & (truth == value)) for value in (0, 1)) >= min_count

    bins = joined(equal_bins(score), enough)
    count = np.bincount(bins).astype(np.float64)
    predicted, observed = (np.bincount(bins, weights) / count for weights in (score, truth))
    count = count / len(prob)
    z = 1.96
    centre = (observed + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(observed * (1 - observed) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    values = {
        "predicted": predicted,
        "observed": observed,
        "count": count,
        "low": np.minimum(centre - half, observed),
        "high": np.maximum(centre + half, observed),
    }
    return {name: value.tolist() for name, value in values.items()}


def _risk(label: Floats, prob: Floats, subject: Any, min_count: int) -> dict[str, Any]:
    """Return the distribution of predicted risk over 25 intervals, for samples with and without the outcome.

    Intervals with few patients are joined.
    """
    top = float(np.quantile(prob, 0.999))
    edges = np.linspace(0, max(top, 1e-6), 26)
    held, truth = np.minimum(prob.ravel(), edges[-1]), np.tile(label, len(prob))
    who = np.tile(subject, len(prob))
    return {
        name: joined_histogram(held[truth == value], edges, who[truth == value], min_count)
        for name, value in (("with", 1), ("without", 0))
    }


def _group(outcome: Outcome, reference: str, name: str, member: Any) -> dict[str, Any]:
    """Return a group's size and events, and the reference's mean risk and AUROC in it."""
    label, prob = outcome.label[member], outcome.prob[reference][:, member]
    events = int(label.sum())
    enough = min(events, len(label) - events) >= MIN_EVENTS
    return {
        "name": name,
        "n": len(label),
        "events": events,
        "observed": events / len(label),
        "predicted": float(prob.mean()),
        "auroc": float(np.mean([auroc(label, row) for row in prob])) if enough else None,
    }
