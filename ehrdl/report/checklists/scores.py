"""Answers on how well the models of a run did: sizes, measures, intervals and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ehrdl.report.checklists.evidence import Evidence
from ehrdl.report.checklists.facts import Answer, Facts, answered, author, failed, listed, named
from ehrdl.report.page.html import estimate, number
from ehrdl.schema import REGRESSION

#: The fewest events, and the fewest others, with which a model can be evaluated (Vergouwe et al., J Clin Epidemiol
#: 58 (2005) 475; Collins et al., Stat Med 35 (2016) 214).
MIN_EVENTS = 100
#: The fewest events per candidate predictor; below 10, overfitting is likely (Moons et al., Ann Intern Med 170 (2019)
#: W1).
MIN_PER_PREDICTOR = 10
_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
}
_CALIBRATION = ("calibration_slope", "calibration_intercept")


def evaluation_size(facts: Facts) -> Answer:
    """Return whether enough patients had the outcome for the evaluation."""
    if facts.hidden:
        return _not_shown(facts)
    binary = [output for output in facts.outputs if output["kind"] != REGRESSION]
    texts = [
        f"{output['name']}: {number(output['events'])} of {number(output['n'])} scored predictions had the outcome"
        for output in binary
    ]
    at = [facts.scores(output, "events") for output in binary]
    few = [output for output in binary if min(output["events"], output["n"] - output["events"]) < MIN_EVENTS]
    rule = f"At least {MIN_EVENTS} with and {MIN_EVENTS} without are needed (Vergouwe 2005, Collins 2016)."
    if few:
        return failed(f"{'; '.join(texts)}. {rule}", *at)
    if binary:
        return answered(f"{'; '.join(texts)}. {rule}", *at)
    sizes = [f"{output['name']}: {number(output['n'])} predictions" for output in facts.outputs]
    return author(f"{'; '.join(sizes)}.", *(facts.scores(output, "n") for output in facts.outputs))


def _not_shown(facts: Facts) -> Answer:
    """Return that the results of some outputs are hidden, because of few patients."""
    reasons = [f"{output['name']}: {output['hidden']}" for output in facts.hidden]
    return failed(f"{'; '.join(reasons)}.", *(facts.scores(output, "n") for output in facts.hidden))


def development_size(facts: Facts) -> Answer:
    """Return whether enough training samples had the outcome per candidate predictor.

    The number of events in training is not given. Less those of the evaluation, it would reveal the few in tuning.
    """
    channels, statics = (facts.get("spec.json", key) for key in ("channels", "statics"))
    total = facts.get("manifest.json", "data", "n_samples", "train")
    found = _training(facts)
    if not channels or not statics or not found or not isinstance(total, int):
        return author()
    n = len(channels) + len(statics)
    few = [name for name, share, _ in found if share * total < MIN_PER_PREDICTOR * n]
    what = f"{n} candidate predictors (channels and static features)"
    words = facts.get("spec.json", "vocab_size")
    notes = f" Notes add {number(words)} words." if words else ""
    rule = f"Below {MIN_PER_PREDICTOR}, overfitting is likely (Moons 2019); networks have many more weights.{notes}"
    evidence = (
        *(at for *_, at in found),
        facts.at("manifest.json", "data", "n_samples", "train"),
        facts.at("spec.json", "channels"),
    )
    if few:
        return failed(
            f"For {what}, fewer than {MIN_PER_PREDICTOR} training samples per predictor had {listed(few)}. {rule}",
            *evidence,
        )
    return answered(
        f"For {what}, at least {MIN_PER_PREDICTOR} training samples per predictor had the outcome. {rule}", *evidence
    )


def _training(facts: Facts) -> list[tuple[str, float, Evidence | None]]:
    """Return the share of training samples with each binary outcome, and its line."""
    outputs, shares = (facts.get("spec.json", key) or [] for key in ("outputs", "prevalence"))
    return [
        (str(output["name"]), float(share), facts.at("spec.json", "prevalence", i))
        for i, (output, share) in enumerate(zip(outputs, shares, strict=False))
        if output.get("kind") != REGRESSION
    ]


def size(facts: Facts) -> Answer:
    """Return the size of the study, and whether it is enough for the evaluation."""
    found = evaluation_size(facts)
    if found.status == "failed" or not facts.is_run:
        return found
    fitted = facts.get("manifest.json", "data", "n_samples")
    every = f" Models were fitted on {facts.size('train')}." if fitted else ""
    return answered(
        f"{found.text}{every} The run makes no calculation of the sample size.",
        *found.evidence,
        facts.at("manifest.json", "data", "n_samples"),
        left="Any calculation of the sample size.",
    )


def in_each_analysis(facts: Facts) -> Answer:
    """Return how many patients and events are in fitting, choices and evaluation."""
    sizes = facts.at("manifest.json", "data", "n_samples")
    texts = [
        f"{facts.size(name)} {use}"
        for name, use in (
            ("train", "in fitting"),
            ("tuning", "in tuning and calibration"),
            ("held out", "in evaluation"),
        )
        if sizes
    ]
    events = [
        f"{number(output['events'])} events of {output['name']} in evaluation"
        for output in facts.outputs
        if "events" in output
    ]
    return answered(
        f"{listed([*texts, *events], 12)}.",
        sizes,
        facts.at("manifest.json", "data", "n_subjects") if sizes else None,
        *(facts.scores(output, "events") for output in facts.outputs),
        *(at for *_, at in _training(facts)),
        left="The events in fitting and tuning." if sizes else "Fitting and choices.",
    )


def measures(facts: Facts) -> Answer:
    """Return which measures were used; failed if discrimination or calibration is not among them."""
    used: dict[str, Evidence | None] = {}
    for output in facts.outputs:
        for metric in _NAMES:
            if _has(facts.of_model(output, output["reference"]), metric):
                used[_NAMES[metric]] = facts.scores(output, "models", output["reference"], metric)
    if facts.hidden and not used:
        return _not_shown(facts)
    uncalibrated = [output for output in facts.outputs if not calibrated(facts, output)]
    if uncalibrated:
        names = listed([output["name"] for output in uncalibrated])
        at = [facts.scores(output, "models", output["reference"]) for output in uncalibrated]
        return failed(f"No calibration is reported for {names}. Reported are {listed(list(used))}.", *at)
    rules = [facts.scores(output, "decisions") for output in facts.outputs if output.get("alarms")]
    benefit = ", net benefit and what alarms catch and cost" if rules else ""
    pairs = " Models are compared in pairs on the same draws of patients."
    at = [facts.scores(output, "differences") for output in facts.outputs]
    compared = pairs if any(output["differences"] for output in facts.outputs) else ""
    return answered(f"Measures: {listed(list(used))}{benefit}.{compared}", *used.values(), *rules, *at)


def all_three(facts: Facts) -> Answer:
    """Return whether discrimination, calibration and net benefit are all reported."""
    found = measures(facts)
    lacking = [output for output in facts.outputs if output["kind"] != REGRESSION and not output.get("alarms")]
    if found.status != "answered" or not lacking:
        return found
    names = listed([output["name"] for output in lacking])
    return failed(f"No net benefit is reported for {names}.", *(facts.scores(output, "n") for output in lacking))


def calibrated(facts: Facts, output: Mapping[str, Any]) -> bool:
    """Return whether the slope and intercept of calibration of the reference are known; numbers need none."""
    scores = facts.of_model(output, output["reference"])
    return output["kind"] == REGRESSION or all(_has(scores, metric) for metric in _CALIBRATION)


def _has(scores: Mapping[str, Any], metric: str) -> bool:
    return (scores.get(metric) or {}).get("value") is not None


def performance(facts: Facts) -> Answer:
    """Return the scores of the reference with their intervals; failed without calibration or without intervals."""
    found = measures(facts)
    if found.status == "failed" or not facts.outputs:
        return found
    texts, evidence = [], []
    for output in facts.outputs:
        name = output["reference"]
        scores = facts.of_model(output, name)
        known = [metric for metric in _NAMES if _has(scores, metric)]
        if not _has_interval(scores[known[0]]):
            return failed(f"The scores of {name} have no interval.", facts.scores(output, "models", name, known[0]))
        told = [f"{_NAMES[metric]} {estimate(scores[metric])}" for metric in known]
        texts.append(f"{name} on {output['name']}: {listed(told, 12)}.")
        evidence += [facts.scores(output, "models", name, metric) for metric in known]
        texts += _against(output)
    groups = " Groups of patients are in the report." if any(output["groups"] for output in facts.outputs) else ""
    return answered(f"{' '.join(texts)}{groups}", *evidence)


def _has_interval(score: Mapping[str, Any]) -> bool:
    return score.get("low") is not None and score.get("high") is not None


def _against(output: Mapping[str, Any]) -> list[str]:
    """Say how the reference compares with the best baseline."""
    first = output["headline"]
    if not first.get("baseline") or not first.get("difference"):
        return []
    metric = "MAE" if output["kind"] == REGRESSION else "AUROC"
    verdict = {
        "better": "it is better",
        "worse": "it is worse",
        "not told apart": "these patients do not tell them apart",
    }.get(str(first["verdict"]), "the difference has no interval")
    return [f"Against {first['baseline']} its {metric} differs by {estimate(first['difference'], True)}: {verdict}."]


def interpretation(facts: Facts) -> Answer:
    """Return how the reference compares with the best baseline; what it means is for the author."""
    texts = [text for output in facts.outputs for text in _against(output)]
    at = [facts.scores(output, "differences") for output in facts.outputs] if texts else []
    return author(" ".join(texts), *at)


def output_form(facts: Facts) -> Answer:
    """Return what the models give, and how thresholds were set."""
    kinds = [
        f"{output['name']} as {'a number' if output['kind'] == REGRESSION else 'a probability'}"
        for output in facts.summary["outputs"]
    ]
    rules = {table["title"]: table["chosen_on"] for output in facts.outputs for table in output.get("alarms") or []}
    chosen = [f"{rule}{f' (chosen on {named(on)} samples)' if on else ''}" for rule, on in rules.items()]
    alarms = f" Alarms are scored by these rules: {'; '.join(chosen)}." if chosen else ""
    return answered(
        f"The models give {listed(kinds)}.{alarms}",
        facts.at("manifest.json", "outputs") or facts.at("metrics.json", "outputs"),
        *(facts.scores(output, "decisions") for output in facts.outputs if output.get("alarms")),
        left="Why these thresholds.",
    )


def fairness(facts: Facts) -> Answer:
    """Return by which groups the results are shown."""
    groups = sorted({group["name"] for output in facts.outputs for group in output["groups"]})
    if not groups:
        return author()
    at = [facts.scores(output, "subgroups") for output in facts.outputs]
    return author(f"The report shows results by {listed(groups)}; it draws no verdict on fairness.", *at)


def clusters(facts: Facts) -> Answer:
    """Return that differences between hospitals were not estimated."""
    return author("The run does not estimate differences between hospitals or countries." if facts.is_run else "")


def limits(facts: Facts) -> Answer:
    """Return the limits that the run knows; the discussion is for the author."""
    at = facts.at("flow.json", "notes", "caveats") or facts.at("flow.json", "caveats")
    return author(f"The run knows these: {' '.join(facts.summary['limits'])}" if facts.is_run else "", at)
