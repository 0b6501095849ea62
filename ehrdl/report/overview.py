"""The answers on the report's first screen: on whom a model is worse, and whether it may be used."""

from __future__ import annotations

from typing import Any

#: The most groups that the first screen names.
N_WORST = 3


def worst(output: dict[str, Any]) -> list[str]:
    """Return a sentence for each of the groups with the lowest AUROC, if that is below the AUROC of all patients."""
    overall = output["headline"]["auroc"]["value"]
    rows = [(row, table["name"]) for table in output["groups"] if not table["is_pair"] for row in table["rows"]]
    known = [(row, column) for row, column in rows if row["rows"] and row["auroc"] is not None]
    lower = sorted((pair for pair in known if pair[0]["auroc"] < overall), key=lambda pair: pair[0]["auroc"])
    return [
        f"{column.capitalize()} {row['name']}: AUROC {_estimate(row['rows'][0]['auroc'])} in {row['n']:,} predictions, "
        f"against {overall:.2f} in all."
        for row, column in lower[:N_WORST]
    ]


def _estimate(value: dict[str, Any]) -> str:
    text = f"{value['value']:.2f}"
    return text if value["low"] is None else f"{text} ({value['low']:.2f} to {value['high']:.2f})"


def use(output: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, str]]:
    """Return what the run shows for and against the use of the reference model, each with a `state` and a `text`.

    Args:
        output: the content of the report for one binary output.
        scores: the part of metrics.json for the output.
    """
    found = [*_against_baseline(output["headline"]), _calibration(output["headline"]), *_benefit(output, scores)]
    return [{"state": state, "text": text} for state, text in found]


def _against_baseline(first: dict[str, Any]) -> list[tuple[str, str]]:
    other = first["baseline"]
    if not first["verdict"]:
        return []
    told = {
        "better": ("Shown", f"It ranks patients better than the best simpler model, {other}."),
        "worse": ("Not shown", f"A simpler model, {other}, ranks patients better: prefer it."),
    }
    unknown = ("Not shown", f"These patients do not show that it ranks better than a simpler model, {other}.")
    return [told.get(first["verdict"], unknown)]


def _calibration(first: dict[str, Any]) -> tuple[str, str]:
    if not first["calibration"]:
        return "Shown", "Its risks agree with what happened, as far as these patients tell."
    return (
        "Not shown",
        f"Its risks are {', and '.join(first['calibration'])}: recalibrate them before anyone acts on one.",
    )


def _benefit(output: dict[str, Any], scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Compare the net benefit at the first threshold of the risk with an alarm for everyone, and with no alarm."""
    rules = [rule for rule in (scores.get("decisions") or {}).values() if rule["kind"] == "risk"]
    shown = {row["name"] for table in output["alarms"] for row in table["rows"]}
    if not rules or output["reference"] not in shown:
        return []
    gain, everyone = rules[0]["models"][output["reference"]]["net_benefit"], rules[0]["all"]["net_benefit"]
    if gain["low"] is None:
        return []
    least = max(0.0, everyone["value"])
    better = gain["low"] > least
    return [
        (
            "Shown" if better else "Not shown",
            f"Alarms at a risk of {100 * rules[0]['at']:g} % have a net benefit of {100 * gain['value']:.1f} per 100 "
            f"({100 * gain['low']:.1f} to {100 * gain['high']:.1f}); the better of an alarm for everyone and none has "
            f"{100 * least:.1f}.",
        )
    ]
