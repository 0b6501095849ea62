"""What it means that a run's models were scored on other data: external or temporal validation, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.report.cohort.words import count, joined, share
from ehrdl.report.places import in_text
from ehrdl.report.suppress import Shown

Json = Mapping[str, Any]

_TITLES = {
    "external": "External validation",
    "temporal": "Temporal validation",
    "same": "The run's own data",
    "overlapping": "Not an external validation: patients of the run are among these",
}
_UNTOUCHED = "Nothing was fitted, calibrated or chosen on these patients."


def validation(manifest: Json, shown: Shown, few: bool) -> dict[str, Any] | None:
    """Return a title and sentences about predictions on other data than the run's; None if these are a run's own.

    Args:
        manifest: the manifest beside the predictions, with `validation`.
        shown: the limit for small groups.
        few: whether numbers of samples and of outcomes are hidden.
    """
    facts = manifest.get("validation")
    if not facts:
        return None
    kind = str(facts["kind"])
    lines = [_who(facts, shown, few), *_where(facts, kind), _KINDS[kind].format(shared=_shared(facts, shown))]
    if kind in ("external", "temporal"):
        lines += [] if few else [_rate(name, values) for name, values in facts["rates"].items()]
        lines += [f"Data: {in_text(line)}" for line in facts["gaps"]]
    return {"kind": kind, "title": _TITLES[kind], "lines": [line for line in lines if line]}


_KINDS = {
    "external": f"The data are taken to be of another hospital, or of other patients, than the run's. {_UNTOUCHED}",
    "temporal": f"The data are of the run's own hospital, from another time, as the command said. {_UNTOUCHED}",
    "same": "These are the very data that the run was fitted on. Only its held-out patients are scored. This repeats "
    "the run's own evaluation, and is no external validation.",
    "overlapping": "{shared} samples here are also among the run's own tuning or held-out samples, so its training "
    "patients are probably here too. The scores are flattered.",
}


def _shared(facts: Json, shown: Shown) -> str:
    return count(shown.count(int(facts["shared_samples"])))


def _who(facts: Json, shown: Shown, few: bool) -> str:
    fitted, scored = facts["fitted"], facts["scored"]
    ours = f"The models of the run {facts['run']} were fitted on {fitted['source']}"
    if not few and isinstance(fitted.get("samples"), int) and fitted["patients"] >= shown.min_count:
        ours += f" ({count(fitted['samples'])} training samples of {count(fitted['patients'])} patients)"
    theirs = f"scored on {scored['source']}"
    if not few and scored["patients"] >= shown.min_count:
        theirs += f" ({count(scored['samples'])} samples of {count(scored['patients'])} patients)"
    return f"{ours} and {theirs}."


def _where(facts: Json, kind: str) -> list[str]:
    """Return the settings of both data if they differ, and their years if these are known."""
    lines = []
    fitted, scored = facts["fitted"], facts["scored"]
    if kind == "external" and scored.get("setting") and scored.get("setting") != fitted.get("setting"):
        lines.append(f"Fitted on: {fitted.get('setting') or 'setting unknown'} Scored on: {scored['setting']}")
    if fitted.get("years") and scored.get("years") and kind != "same":
        lines.append(f"Years: fitted on {_span(fitted['years'])}, scored on {_span(scored['years'])}.")
    return lines


def _span(years: list[int]) -> str:
    return joined([str(year) for year in dict.fromkeys(years)]).replace(" and ", " to ")


def _rate(name: str, values: Json) -> str:
    """Compare how often an outcome happened with how often it did in training."""
    if values["rate"] is None or values["fitted"] is None:
        return ""
    here, there = values["rate"], values["fitted"]  # the latter to a whole percent: the run's report may hide its count
    said = (
        f"The outcome {name.replace('_', ' ')} happened in {share(here)} of the samples here (95 % interval "
        f"{share(values['low'])} to {share(values['high'])}, samples taken as independent), and in {100 * there:.0f} % "
        "of the training samples"
    )
    if values["low"] <= there <= values["high"]:
        return f"{said}: no difference can be told."
    return f"{said}: it is {'more' if here > there else 'less'} frequent here. Look at the calibration first."
