"""Answers on the predictors and the outcome of a run: what they are, when they are known, and what is missing."""

from __future__ import annotations

from ehrdl.report.checklists.facts import Answer, Facts, answered, author, failed, listed
from ehrdl.report.page.html import number
from ehrdl.report.places import in_config, in_text

#: Tasks whose labels were made elsewhere, so that the run does not know the rule.
_GIVEN = ("Labels",)
#: The check of the leak audit in which facts after the prediction are replaced.
_LATER = "future"


def predictors(facts: Facts) -> Answer:
    """Return what the models read."""
    channels, statics = (facts.get("spec.json", key) for key in ("channels", "statics"))
    if channels is None or statics is None:
        return author()
    units = [f"{one['name']} [{one['unit']}]" if one.get("unit") else str(one["name"]) for one in channels]
    series = f"{len(channels)} time series ({listed(units)})" if channels else "no time series"
    notes = " The text of notes is read too." if "note" in (facts.get("spec.json", "modalities") or []) else ""
    hours = facts.get("spec.json", "window_hours")
    window = f" Series reach back {hours:g} h before the prediction." if channels and hours else ""
    return answered(
        f"The models read {series} and {len(statics)} static features ({listed(list(map(str, statics)), 12)}).{notes}"
        f"{window} spec.json lists each with its unit and plausible range.",
        facts.at("spec.json", "channels"),
        facts.at("spec.json", "statics"),
        facts.at("spec.json", "window_hours"),
        left="How each was measured at the bedside.",
    )


def brief(facts: Facts) -> str:
    """Return in one sentence what the models read; empty if it is unknown."""
    channels, statics = (facts.get("spec.json", key) for key in ("channels", "statics"))
    if channels is None or statics is None:
        return ""
    parts = [f"{len(channels)} time series ({listed([str(one['name']) for one in channels], 6)})"] if channels else []
    parts += [f"{len(statics)} static features ({listed(list(map(str, statics)), 3)})"] if statics else []
    parts += ["the text of notes"] if "note" in (facts.get("spec.json", "modalities") or []) else []
    return f"The models read {listed(parts)}. spec.json lists them with units and plausible ranges."


def choice_of_predictors(facts: Facts) -> Answer:
    """Return how the list of predictors came about."""
    at = facts.at("config.yaml", "data", "concepts")
    if at is None:
        return author()
    whose = "a table of the user" if facts.get("config.yaml", "data", "concepts") else "the table of the source"
    return answered(
        f"The channels are those of {whose}, which is fixed before any model is fitted.",
        at,
        facts.at("spec.json", "channels"),
        left="Why these predictors were offered to the models.",
    )


def same_for_all(facts: Facts) -> Answer:
    """Return whether one definition of the predictors served for all patients."""
    return answered(
        "One table maps the codes and units of the source to channels for all patients; values in unknown units are "
        "left out and counted.",
        facts.at("spec.json", "channels"),
        facts.at("manifest.json", "unknown_units"),
        left="Whether wards and sites measured alike.",
    )


def handling(facts: Facts) -> Answer:
    """Return how predictors enter the models: scaled by means of training patients."""
    channels = facts.get("spec.json", "channels")
    if not channels:
        return author()
    numeric = [i for i, one in enumerate(channels) if one.get("kind") == "numeric"]
    first = facts.at("spec.json", "channels", numeric[0], "mean") if numeric else None
    words = facts.get("spec.json", "vocab_size")
    notes = f" Notes become tokens of a vocabulary of {number(words)}." if words else ""
    return answered(
        f"{len(numeric)} numeric channels stay continuous; spec.json holds the mean and standard deviation by which "
        f"each is scaled for all patients.{notes}",
        first,
        facts.at("spec.json", "static_mean"),
        facts.at("spec.json", "vocab_size") if words else None,
    )


def quality(facts: Facts) -> Answer:
    """Return which checks of data quality were made, and what they found."""
    at = facts.at("manifest.json", "quality")
    if at is None:
        return author()
    found = facts.summary["quality"]
    serious = sum(row["level"] == "warning" for row in found)
    first = [in_text(f"{row['table']}.{row['column']}: {number(row['n'])} {row['what']}") for row in found[:3]]
    what = f" The first: {'; '.join(first)}." if first else ""
    return answered(
        f"Values outside the plausible range of their channel were left out. The checks have {len(found)} findings, "
        f"{serious} of them serious.{what}",
        at,
        facts.at("manifest.json", "implausible_values"),
        left="Whether quality was alike in all groups of patients.",
    )


def missing(facts: Facts) -> Answer:
    """Return what is missing, and whether samples were left out for it."""
    flags = [name for name in facts.get("spec.json", "statics") or [] if str(name).endswith("_missing")]
    texts = []
    if flags:
        texts.append(f"A missing static value has a feature of its own ({listed(flags)}).")
    if _none_left_out(facts):
        texts.append("Every sample of the cohort is in a split, so none was left out for a missing predictor.")
    lines = [in_text(str(line)) for line in facts.get("manifest.json", "missing") or []]
    texts += [f"The source lacks: {'; '.join(lines)}."] if lines else []
    unknown = [f"{number(output['unknown'])} of {output['name']}" for output in facts.outputs]
    texts += [f"Predictions whose outcome is unknown are left out of the scores: {listed(unknown)}."] if unknown else []
    table = facts.at("cohort.json", "predictors")
    texts += ["A table in the report tells which predictors the samples lack."] if table else []
    return answered(
        " ".join(texts),
        table,
        facts.at("manifest.json", "data", "n_samples"),
        facts.at("manifest.json", "missing") if lines else None,
        facts.at("spec.json", "statics") if flags else None,
        *(facts.scores(output, "unknown") for output in facts.outputs),
        left="Why data are missing.",
    )


def _none_left_out(facts: Facts) -> bool:
    """Return whether the splits together hold all samples that the flow chart kept."""
    steps, sizes = facts.get("flow.json", "steps") or [], facts.get("manifest.json", "data", "n_samples") or {}
    one_chart = len({step.get("task") for step in steps}) == 1
    return one_chart and bool(sizes) and sum(sizes.values()) == steps[-1]["admissions"]


def in_time(facts: Facts) -> Answer:
    """Return whether the predictors are known when the model is to be used."""
    kinds = {one["name"]: (i, one) for i, one in enumerate(facts.get("manifest.json", "models") or [])}
    for output in facts.outputs:
        place, model = kinds.get(output["reference"], (0, {}))
        if model.get("deployable") is False:
            at = facts.at("manifest.json", "models", place, "deployable")
            return failed(f"{output['reference']} reads what is not known at the prediction time.", at)
    audit = audited(facts, _LATER)
    if audit is not None:
        return audit
    late = [name for name, (_, one) in kinds.items() if not one.get("deployable", True) and one["kind"] != "truth"]
    marked = f" Models that read later facts are marked: {listed(late)}." if late else ""
    at = facts.at("manifest.json", "task_info", "sentence")
    text = "Each fact is read from the time when the hospital's systems could show it."
    return author(f"{text}{marked} No leak audit of this run is there." if at else "", at)


def audited(facts: Facts, needs: str = "") -> Answer | None:
    """Return the result of the run's leak audit; None if it has none.

    Args:
        facts: what is known about the run.
        needs: the name of a check; without a pass of it, the answer is left to the author. Empty = none is needed.
    """
    checks = facts.get("leak_audit.json", "checks")
    if not isinstance(checks, list):
        return None
    places: dict[str, list[int]] = {}
    for i, check in enumerate(checks):
        places.setdefault(str(check.get("status")), []).append(i)
    wrong, passed = places.get("fail", []), places.get("pass", [])
    if wrong:
        names = listed([f'"{checks[i].get("title") or checks[i].get("name")}"' for i in wrong])
        at = [facts.at("leak_audit.json", "checks", i, "status") for i in wrong]
        return failed(f"Checks of the leak audit failed: {names}.", *at)
    unsure = len(checks) - len(passed)
    rest = f", and {unsure} {'are' if unsure > 1 else 'is'} not verified" if unsure else ""
    text = f"The leak audit of this run passed {len(passed)} of {len(checks)} checks{rest}; none failed."
    shown = [i for i in passed if checks[i].get("name") == needs] or ([] if needs else passed)
    at = [facts.at("leak_audit.json", "checks", i, "status") for i in shown]
    return answered(text, *at) if at else author(text, facts.at("leak_audit.json", "checks"))


def blind(facts: Facts) -> Answer:
    """Return whether predictors were assessed without knowledge of the outcome: later facts change no prediction."""
    return audited(facts, _LATER) or author()


def outcome(facts: Facts) -> Answer:
    """Return the definition and the horizon of the outcome."""
    at = facts.at("manifest.json", "task_info", "sentence")
    options = in_config(facts.get("config.yaml", "task", "init_args") or {})
    given = [f"{key} = {value}" for key, value in options.items() if isinstance(value, str | int | float)]
    rule = f" The options of its rule: {listed(given, 12)}." if given else ""
    return answered(
        f"{facts.summary['sentence']}{rule}",
        at,
        facts.at("config.yaml", "task", "class_path"),
        *(facts.at("config.yaml", "task", "init_args", key) for key in options if key.startswith("horizon")),
        left="Why this outcome was chosen, and whether it is recorded alike in all groups of patients.",
    )


def outcome_fits(facts: Facts) -> Answer:
    """Return the definition of the outcome with its known caveats; whether it fits the purpose is for the author."""
    found = outcome(facts)
    caveats = [in_text(str(line)) for line in facts.get("flow.json", "notes", "caveats") or []]
    known = f" Known limits: {' '.join(caveats)}" if caveats else ""
    at = facts.at("flow.json", "notes", "caveats") if caveats else None
    return author(f"{found.text}{known}" if found.evidence else "", *found.evidence, at)


def one_rule(facts: Facts) -> Answer:
    """Return whether one rule decided the outcome of all patients."""
    name = facts.get("config.yaml", "task", "class_path")
    if not name or _given(facts):
        return author("The labels were given to the run in files." if name else "")
    return answered(
        "One program applied the same rule to the records of all patients.",
        facts.at("config.yaml", "task", "class_path"),
        left="Whether all patients were followed and coded alike.",
    )


def assessors(facts: Facts) -> Answer:
    """Return who assessed the outcome: a program, unless the labels were given."""
    found = one_rule(facts)
    text = "A program read the outcome from the records; the run does not show who recorded them."
    return author(text if found.status == "answered" else found.text, *found.evidence)


def interval(facts: Facts) -> Answer:
    """Return the time between prediction and outcome."""
    options = facts.get("config.yaml", "task", "init_args") or {}
    found = [key for key in options if key.startswith("horizon") and isinstance(options[key], int | float)]
    if not found:
        return author()
    times = listed([f"{options[key]:g} {key.rpartition('_')[2]}" for key in found])
    at = [facts.at("config.yaml", "task", "init_args", key) for key in found]
    return answered(f"The outcome counts within {times} after the prediction.", *at)


def _given(facts: Facts) -> bool:
    return str(facts.get("config.yaml", "task", "class_path")).rpartition(".")[2] in _GIVEN
