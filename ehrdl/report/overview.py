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
        "better": ("Supported", f"It ranks patients better than the best simpler model, {other}."),
        "worse": ("Not supported", f"A simpler model, {other}, ranks patients better: prefer it."),
    }
    unknown = ("Not supported", f"These patients do not show that it ranks better than a simpler model, {other}.")
    return [told.get(first["verdict"], unknown)]


def _calibration(first: dict[str, Any]) -> tuple[str, str]:
    if first["calibration"] is None:
        return "Open", "Whether its risks are right: there are too few patients to tell."
    if not first["calibration"]:
        return "Supported", "Its risks agree with what happened, as far as these patients tell."
    return (
        "Not supported",
        f"Its risks are {', and '.join(first['calibration'])}: recalibrate them before anyone acts on one.",
    )


def _benefit(output: dict[str, Any], scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Compare the net benefit at the first threshold of the risk with no alarm, and with an alarm for everyone."""
    rules = [rule for rule in (scores.get("decisions") or {}).values() if rule["kind"] == "risk"]
    shown = {row["name"] for table in output["alarms"] for row in table["rows"]}
    model = output["reference"]
    if not rules or model not in shown:
        return []
    gain, over_all = rules[0]["models"][model]["net_benefit"], rules[0]["over_all"][model]
    if None in (gain["low"], over_all["low"]):
        return []
    state = "Supported" if gain["low"] > 0 and over_all["low"] > 0 else "Not supported"
    return [
        (
            state,
            f"Alarms at a risk of {100 * rules[0]['at']:g} % are better than none and than an alarm for everyone: "
            f"their net benefit per 100 is {_hundred(gain)}, and {_hundred(over_all, '+')} against the latter.",
        )
    ]


def _hundred(value: dict[str, Any], sign: str = "") -> str:
    number, low, high = (f"{100 * value[name]:{sign}.1f}" for name in ("value", "low", "high"))
    return f"{number} ({low} to {high})"


def general_use(audit: dict[str, Any], is_validation: bool) -> list[dict[str, str]]:
    """Return what speaks for and against the use of any model of the run.

    Args:
        audit: the rows of the leak audit.
        is_validation: whether the patients are other ones than those of the run's own splits.
    """
    failed, passed = (
        [row["title"] for row in audit["checks"] if row["status"] == status] for status in ("fail", "pass")
    )
    open_ = len(audit["checks"]) - len(passed) - len(failed)
    if failed:
        found = [("Not supported", f"Checks of the leak audit failed: {'; '.join(failed)}.")]
    elif passed:
        rest = f"; {open_} could not be made" if open_ else ""
        found = [("Supported", f"No leak was found by {len(passed)} of the checks{rest}.")]
    else:
        found = [("Open", "Whether a model saw what nobody knew in time: no leak audit was made.")]
    if not is_validation:
        found.append(("Open", "How well it does elsewhere, or later: it was scored on patients of the same data."))
    found.append(("Open", "Whether its use helps patients: this is research software, not a medical device."))
    return [{"state": state, "text": text} for state, text in found]
