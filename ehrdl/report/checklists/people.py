"""Answers on the patients of a run: where they come from, who was kept, and what is known about them."""

from __future__ import annotations

from typing import Any

from ehrdl.report.checklists.facts import Answer, Facts, answered, author, counted, failed, listed
from ehrdl.report.page.html import number, percent
from ehrdl.report.places import in_text

#: The words in a rule of the flow chart that tell that the rule uses what happened after the prediction.
_FUTURE = "selects on the future"


def title(facts: Facts) -> Answer:
    """Return a draft of a title: the kind of study, what is predicted, and for whom."""
    kind = "External evaluation" if facts.external else "Development and internal evaluation"
    at = facts.at("manifest.json", "task_info", "title")
    return author(f'The run suggests: "{kind} of models of: {facts.summary["title"]}".' if at else "", at)


def abstract(facts: Facts) -> Answer:
    """Return where the numbers of an abstract are."""
    numbers = [facts.scores(output, "models", output["reference"]) for output in facts.outputs]
    return author("The numbers for an abstract are in model_card.md." if facts.is_run else "", *numbers)


def objectives(facts: Facts) -> Answer:
    """Return whether models were developed, evaluated, or both."""
    kinds = [one["kind"] for one in facts.get("manifest.json", "models") or []]
    if not kinds:
        return author()
    n = sum(kind in ("deep", "classical", "combined") for kind in kinds)
    does = f"evaluates {n} fitted models on other data" if facts.external else f"develops {n} models and evaluates them"
    return author(f"The run {does}.", facts.at("manifest.json", "models"))


def source(facts: Facts) -> Answer:
    """Return where the data come from, and which tables were read."""
    name, tables = facts.get("manifest.json", "source"), facts.get("manifest.json", "tables") or {}
    if not name:
        return author()
    where = "a simulated hospital" if facts.summary["simulated"] else "the records of one source"
    read = f" Tables read: {listed(list(tables), 12)}." if tables else ""
    same = " The models were fitted on other data." if facts.external else " Models are fitted and evaluated on it."
    return answered(
        f"The data are {where} (source {name}).{same}{read}",
        facts.at("manifest.json", "source"),
        facts.at("manifest.json", "tables"),
        left="Why these data were chosen, and whom they represent.",
    )


def source_fits(facts: Facts) -> Answer:
    """Return whether the data can answer a clinical question: simulated patients cannot."""
    at = facts.at("manifest.json", "source")
    if facts.summary["simulated"]:
        return failed("The patients are simulated, so nothing follows for real ones.", at)
    name = facts.get("manifest.json", "source")
    return author(f"The data are of the source {name}." if name else "", at)


def dates(facts: Facts) -> Answer:
    """Return the dates of the data, if the run knows true ones."""
    told = (facts.summary.get("cohort") or {}).get("dates")
    if told:
        shown = [facts.at("cohort.json", "dates", key) for key in ("kind", "years")]
        is_true = facts.get("cohort.json", "dates", "kind") in ("real", "approximate")
        return answered(told, *shown, left="The end of follow-up.") if is_true else author(told, *shown)
    year = facts.get("config.yaml", "data", "split", "cut_year")
    at = facts.at("config.yaml", "data", "split", "cut_year")
    return author(f"Stays from {year} on were held out." if year else "", at if year else None)


def setting(facts: Facts) -> Answer:
    """Return the hospitals of the data in words, as the source tells them."""
    told = (facts.summary.get("cohort") or {}).get("setting")
    at = facts.at("cohort.json", "setting", "setting")
    return (
        answered(in_text(str(told)), at, left="Level of care, and number and place of centres.") if told else author()
    )


def eligibility(facts: Facts) -> Answer:
    """Return the rules by which admissions were included and excluded."""
    steps = facts.summary["flow"]
    if not steps:
        return author()
    future = _on_the_future(facts)
    if future is not None:
        rule = steps[future]["rule"]
        return failed(
            f"A rule of the cohort selects patients by what happened after the prediction: {rule}.",
            facts.at("flow.json", "steps", future, "rule"),
        )
    caveats = [step["caveat"] for step in steps if step["caveat"]]
    unsure = f" Where a rule could not be applied: {'; '.join(caveats)}." if caveats else ""
    rules = "; ".join(step["rule"] for step in steps)
    at = [facts.at("flow.json", "steps", i, "rule") for i in (0, len(steps) - 1)]
    return answered(f"{len(steps)} rules were applied in this order: {rules}.{unsure}", *at)


def representative(facts: Facts) -> Answer:
    """Return how many of those in the data were kept; a cohort that is chosen by the future is not representative."""
    found = eligibility(facts)
    if found.status == "failed" or not facts.summary["flow"]:
        return found
    kept = flow(facts)
    return author(kept.text, *kept.evidence)


def _on_the_future(facts: Facts) -> int | None:
    """Return the number of the first step of the flow chart that selects by what happened after the prediction."""
    steps = facts.summary["flow"]
    return next((i for i, step in enumerate(steps) if _FUTURE in step["rule"]), None)


def flow(facts: Facts) -> Answer:
    """Return how many admissions and patients were in the data, how many were kept, and how many had the outcome."""
    steps = facts.summary["flow"]
    texts: list[str] = []
    evidence: list[Any] = []
    for task in dict.fromkeys(step["task"] for step in steps):
        places = [i for i, step in enumerate(steps) if step["task"] == task]
        (first, n_first), (last, n_last) = ((i, _counted(steps[i])) for i in (places[0], places[-1]))
        texts.append(f"{f'{task}: of' if task else 'Of'} {n_first} in the data, {n_last} were kept.")
        evidence += [facts.at("flow.json", "steps", i, "admissions") for i in (first, last)]
    for output in facts.outputs:
        texts.append(_had_it(output))
        evidence += [facts.scores(output, "n"), facts.scores(output, "events")]
    return answered(" ".join(texts), *evidence, left="The follow-up time.") if evidence else author()


def _counted(step: dict[str, Any]) -> str:
    """Say how many admissions and patients a step of the flow chart has."""
    return " of ".join(
        counted(step[key], what) for key, what in (("admissions", "admissions"), ("subjects", "patients"))
    )


def _had_it(output: Any) -> str:
    """Say how many scored predictions had an outcome."""
    scored = f"{number(output['n'])} scored predictions of {output['name']}"
    if "events" not in output:
        return f"There are {scored}."
    return f"Of {scored}, {number(output['events'])} had the outcome ({percent(output['prevalence'])})."


def characteristics(facts: Facts) -> Answer:
    """Return where the characteristics of the patients are described."""
    table = facts.at("cohort.json", "characteristics")
    if table:
        text = "The characteristics of the patients are in Table 1 of the report."
        return answered(text, table, facts.at("cohort.json", "outcomes"), left="Treatments and follow-up.")
    groups = sorted({group["name"] for output in facts.outputs for group in output["groups"]})
    if not groups:
        return author()
    sizes = [facts.at("manifest.json", "data", "n_subjects")]
    return author(f"The report gives sizes and outcomes by {listed(groups)}; it has no Table 1.", *sizes)


def compared(facts: Facts) -> Answer:
    """Return how the share with the outcome differs between training and evaluation."""
    shares = [
        f"{output['name']}: {percent(output['prevalence'])} of the scored predictions had it"
        for output in facts.outputs
        if "prevalence" in output
    ]
    at = [facts.scores(output, "prevalence") for output in facts.outputs]
    table = facts.at("cohort.json", "characteristics")
    if table and not facts.external:
        return answered(
            f"Table 1 compares training with held-out patients. {'; '.join(shares)}.",
            table,
            facts.at("cohort.json", "outcomes"),
            *at,
        )
    return author(f"{'; '.join(shares)}. Distributions of predictors are not compared." if shares else "", *at)


def differences(facts: Facts) -> Answer:
    """Return what new data lack of what the models know, or that development and evaluation data are of one source."""
    if facts.external:
        lines = [in_text(str(line)) for line in facts.get("manifest.json", "missing") or []]
        text = (
            f"The new data differ: {'; '.join(lines)}." if lines else "The new data lack nothing that the models read."
        )
        return answered(text, facts.at("manifest.json", "missing"), left="The setting of both hospitals.")
    kind = facts.get("manifest.json", "data", "split", "kind")
    if not kind:
        return author()
    how = {
        "subject": "Patients were assigned at random, so there is none by design",
        "folds": "Patients were assigned at random, so there is none by design",
        "temporal": "Held-out stays are later ones of the same source",
        "source": "The source itself says who is held out",
        "files": "Files say who is held out",
    }.get(str(kind), f"The split is {kind}")
    return answered(
        f"{how}. Rules, outcome and predictors are the same for training, tuning and held-out patients.",
        facts.at("manifest.json", "data", "split", "kind"),
        facts.at("config.yaml", "task", "class_path"),
    )
