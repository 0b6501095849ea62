"""The report's content for one binary output: headline, tables, differences, curves and subgroups, as numbers."""

from __future__ import annotations

from typing import Any

from ehrdl.info import RunInfo
from ehrdl.metrics.by_modality import PRESENT
from ehrdl.metrics.catalogue import METRICS
from ehrdl.metrics.evaluate import Outcome
from ehrdl.report.outcomes.alarms import alarm_tables, utility_rows
from ehrdl.report.outcomes.by_modality import present
from ehrdl.report.outcomes.calibration import before_and_after
from ehrdl.report.outcomes.curves import curves
from ehrdl.report.outcomes.headline import headline
from ehrdl.report.outcomes.ranking import best_baseline, by_interest, differences, rank, reference_of
from ehrdl.report.outcomes.slider import slider
from ehrdl.report.outcomes.subgroups import count_patients, subgroups
from ehrdl.report.overview import use, worst
from ehrdl.report.suppress import Shown, hide_groups
from ehrdl.schema import BINARY

N_DRAWN = 6


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
    found = {
        "name": outcome.output,
        **{key: scores.get(key) for key in facts},
        "unknown": shown.count(outcome.unknown),
        "hidden": "",
        "min_count": shown.min_count,
        "kind": BINARY,
        "ours": shown.ours,
        "metrics": list(METRICS),
        "reference": reference,
        "headline": headline(outcome, scores, reference, baseline, info),
        "slider": slider(outcome, reference, scores, shown),
        "models": rows,
        "not_deployable": [name for name in ranked if not info.deployable(name) and info.kind(name) != "truth"],
        "constant": info.named("constant", among=ranked),
        "differences": differences(scores["differences"], reference),
        "curves": curves(outcome, _drawn(ranked, reference, baseline, info), reference, baseline, shown),
        "alarms": alarm_tables(scores, outcome, by_interest(ranked, reference, baseline, info), shown),
        "present": strata,
        "calibrated": before_and_after(scores, ranked, info),
        "utility": utility_rows(scores, ranked),
        **subgroups(scores, strata, shown),
    }
    return found | {"worst": worst(found), "use": use(found, scores), "smooth": _smooth(scores, rows, reference)}


def _smooth(scores: dict[str, Any], rows: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Return the smooth calibration error of each model, and the reference's minus it."""
    found = scores.get("smooth_ece") or {"models": {}, "differences": {}}
    return [
        {
            "name": row["name"],
            "error": found["models"][row["name"]],
            "difference": found["differences"].get(f"{reference} - {row['name']}"),
        }
        for row in rows
        if row["name"] in found["models"]
    ]


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


def _drawn(ranked: list[str], reference: str, baseline: str | None, info: RunInfo) -> list[str]:
    """Choose at most `N_DRAWN` models to draw, the true risk among them. Constant models have no curve."""
    truth = info.named("truth", among=ranked)
    names = by_interest(ranked, reference, baseline, info)
    return [name for name in names if info.kind(name) not in ("constant", "truth")][: N_DRAWN - len(truth)] + truth
