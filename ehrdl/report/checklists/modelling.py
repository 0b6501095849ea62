"""Answers on how the models of a run were made: split, choices, fitting, weights and software."""

from __future__ import annotations

from typing import Any

from ehrdl.report.checklists.facts import Answer, Facts, answered, author, failed, listed, named
from ehrdl.report.checklists.inputs import audited
from ehrdl.report.places import in_command
from ehrdl.schema import TRAIN

_KINDS = {
    "deep": "deep models",
    "classical": "classical models",
    "score": "clinical scores",
    "combined": "combined models",
    "constant": "constant predictions",
    "truth": "the true risk of the simulator",
}
_SPLITS = {
    "subject": "drawn by patient",
    "folds": "drawn by patient, as one fold of several",
    "temporal": "divided by year",
    "source": "divided as the source says",
    "files": "divided as given in files",
}


def split(facts: Facts) -> Answer:
    """Return how patients were divided between fitting, choices and evaluation."""
    kind = facts.get("manifest.json", "data", "split", "kind")
    if kind is None:
        return author()
    parts = [
        f"{facts.size(name)} {use}"
        for name, use in (("train", "for fitting"), ("tuning", "for choices"), ("held out", "for evaluation"))
    ]
    return answered(
        f"The data were {_SPLITS.get(str(kind), f'divided by {kind}')}: {listed(parts)}. No patient is in two parts.",
        facts.at("manifest.json", "data", "split", "kind"),
        facts.at("manifest.json", "data", "n_samples"),
        facts.at("manifest.json", "data", "n_subjects"),
    )


def models(facts: Facts) -> Answer:
    """Return which models were fitted, how their settings were chosen, and whether on held-out patients."""
    found = facts.get("manifest.json", "models")
    if not found:
        return author()
    again = looked_before(facts)
    if again is not None:
        return again
    by_kind = [
        f"{words} ({listed([one['name'] for one in found if one['kind'] == kind])})"
        for kind, words in _KINDS.items()
        if any(one["kind"] == kind for one in found)
    ]
    fitted = facts.get("manifest.json", "choices", "fitted")
    compared = f"The run compares {listed(by_kind)}."
    if not fitted:
        return author(compared, facts.at("manifest.json", "models"))
    return answered(
        f"{compared} They were fitted on {named(fitted)} patients. {_chosen(facts)}",
        facts.at("manifest.json", "models"),
        facts.at("config.yaml", "model", "class_path"),
        facts.at("config.yaml", "optim"),
        facts.at("manifest.json", "choices"),
        left="Why these models.",
    )


def _chosen(facts: Facts) -> str:
    """Say on which patients settings were chosen."""
    choices = facts.get("manifest.json", "choices")
    tuned = choices.get("tuned") or []
    texts = [
        f"{one.get('n_trials')} trials chose values of {one.get('model')} on {named(one.get('scored_on'))} patients."
        for one in tuned
    ] or ["No search over the settings of the deep models is recorded."]
    epoch = choices.get("epoch")
    fixed = "Training has a fixed schedule" if epoch == "none" else f"Epochs were chosen on {named(epoch)} patients"
    return f"{' '.join(texts)} {fixed}; baselines were chosen on {named(choices.get('baselines'))} patients."


def looked_before(facts: Facts) -> Answer | None:
    """Return that other settings were scored on the same held-out patients before; None if none were.

    Whoever scores several settings on held-out patients and shows one may have chosen by those scores.
    """
    own = facts.get("manifest.json", "held_out") or {}
    others = own.get("others") or []
    same = [
        i
        for i, one in enumerate(others)
        if one.get("subjects") == own.get("subjects") and one.get("settings") != own.get("settings")
    ]
    if not same:
        return None
    n = len({others[i].get("settings") for i in same})
    return failed(
        f"{n} other setting{'s were' if n > 1 else ' was'} scored on the same held-out patients before this run, so "
        "its settings may have been chosen by held-out scores.",
        facts.at("manifest.json", "held_out", "others", same[0]),
        facts.at("manifest.json", "held_out", "subjects"),
    )


def leakage(facts: Facts) -> Answer:
    """Return whether held-out patients stayed unseen: split by patient, ledger, warnings and leak audit."""
    again = looked_before(facts)
    if again is not None:
        return again
    if facts.summary["warnings"]:
        return failed(" ".join(facts.summary["warnings"]), facts.at("manifest.json", "warnings"))
    audit = audited(facts)
    if audit and audit.status == "failed":
        return audit
    if facts.at("manifest.json", "held_out") is None:
        return author()
    others = len(facts.get("manifest.json", "held_out", "others") or [])
    ledger = (
        f"The ledger has {others} earlier run{'s' if others > 1 else ''} of this task, none with other settings on "
        "these held-out patients"
        if others
        else "The ledger has no earlier run on these data"
    )
    text = f"No patient is in two splits. {ledger}. {audit.text if audit else 'No leak audit of this run is there.'}"
    return answered(
        text,
        facts.at("manifest.json", "data", "split", "kind"),
        facts.at("manifest.json", "held_out", "others"),
        *(audit.evidence if audit else ()),
    )


def unseen(facts: Facts) -> Answer:
    """Return whether the models were scored on other patients than they were fitted on."""
    at = facts.at("metrics.json", "split")
    where = facts.summary["split"]
    if where == TRAIN:
        return failed("The scores are of the patients on whom the models were fitted.", at)
    if not facts.is_run:
        return author(f"The file says that its rows are of the split {where}, not on whom the models were fitted.", at)
    if facts.external:
        text = (
            "A finished run made the predictions for other data. The run does not show whether it was fitted on any of"
        )
        return author(f"{text} these patients.", facts.at("manifest.json", "run"))
    return answered(
        f"All scores are of {named(where)} patients; none are of the patients of the fit.",
        at,
        facts.at("manifest.json", "choices", "fitted"),
    )


def resampling(facts: Facts) -> Answer:
    """Return whether resampling served for evaluation, in which every step of development must be repeated."""
    kind = facts.get("manifest.json", "data", "split", "kind")
    if kind is None:
        return author()
    at = facts.at("manifest.json", "data", "split", "kind")
    if kind == "folds":
        return answered("This run is one fold; everything is fitted anew on the training patients of the fold.", at)
    text = (
        "Models were scored on patients who were set aside, not by resampling; draws of patients serve intervals only."
    )
    return answered(text, at, *(facts.scores(output, "draws") for output in facts.outputs))


def overfitting(facts: Facts) -> Answer:
    """Return which means against overfitting were used."""
    optim = facts.get("config.yaml", "optim")
    if not optim:
        return author()
    kept = {
        "averaged": "a fixed schedule whose averaged weights are kept",
        "best_tuning": "early stopping on tuning patients",
    }.get(str(optim.get("selection")), str(optim.get("selection")))
    decay = optim.get("weight_decay")
    dropout = _dropouts(facts.get("config.yaml", "model"), ("model",))
    rates = [f"{'.'.join(map(str, keys[1:]))} {rate}".replace("init_args.", "") for keys, rate in dropout]
    drops = f", dropout ({listed(rates, 12)})" if rates else ""
    return answered(
        f"Deep models have a weight decay of {decay}{drops} and {kept}. All models are scored on patients whom they "
        "have not seen.",
        facts.at("config.yaml", "optim", "weight_decay"),
        facts.at("config.yaml", "optim", "selection"),
        *(facts.at("config.yaml", *keys) for keys, _ in dropout[:1]),
    )


def _dropouts(value: Any, keys: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], float]]:
    """Return the place and rate of each kind of dropout in the config of a model; rates of 0 are left out."""
    if not isinstance(value, dict):
        return []
    found: list[tuple[tuple[str | int, ...], float]] = []
    for key, part in value.items():
        if str(key).endswith("dropout") and isinstance(part, float) and part:
            found.append(((*keys, key), part))
        found += _dropouts(part, (*keys, key))
    return found


def imbalance(facts: Facts) -> Answer:
    """Return which method against class imbalance was used, and what undoes its effect on the risks."""
    optim = facts.get("config.yaml", "optim")
    if not isinstance(optim, dict):
        return author()
    method = optim.get("imbalance") or "none"
    at = facts.at("config.yaml", "optim", "imbalance") or facts.at("config.yaml", "optim")
    weighted = [
        (name, key)
        for name, given in (facts.get("config.yaml", "baseline_params") or {}).items()
        for key, value in given.items()
        if value and key in ("class_weight", "scale_pos_weight", "is_unbalance")
    ]
    places = [facts.at("config.yaml", "baseline_params", *one) for one in weighted]
    if method == "none" and not weighted:
        return answered("No method against class imbalance was used: no class is reweighted or resampled.", at)
    used = [f"optim.imbalance {method}"] if method != "none" else []
    used += [f"{key} of {name}" for name, key in weighted]
    calibrated = facts.get("manifest.json", "choices", "calibration")
    if not calibrated:
        return failed(f"{listed(used)} shifts the risks, and no recalibration is recorded.", at, *places)
    return answered(
        f"{listed(used)} shifts the risks; a calibration that was fitted on {named(calibrated)} patients undoes it.",
        at,
        *places,
        facts.at("manifest.json", "choices", "calibration"),
        left="Why the method was used.",
    )


def not_rebalanced(facts: Facts) -> Answer:
    """Return whether the evaluated patients are as they came, without a correction for imbalance."""
    if not facts.is_run:
        return author()
    at = [facts.scores(output, "prevalence") for output in facts.outputs]
    return answered("Held-out patients are neither resampled nor reweighted.", facts.at("metrics.json", "split"), *at)


def updating(facts: Facts) -> Answer:
    """Return whether a model was changed after its evaluation."""
    on = facts.get("manifest.json", "choices", "calibration")
    if not on:
        return author()
    first = facts.at("calibration.json", 0)
    method = facts.get("config.yaml", "calibrate")
    by = f" by the method {method}" if method else ""
    again = f"Recalibrated risks were fitted{by} on {named(on)} patients." if first else "No risk was recalibrated."
    return answered(
        f"No model was changed after its evaluation. {again}",
        facts.at("manifest.json", "choices", "calibration"),
        facts.at("config.yaml", "calibrate"),
        first,
    )


def calculated(facts: Facts) -> Answer:
    """Return how predictions are calculated."""
    files = facts.get("manifest.json", "files") or {}
    weights = [name for name in files if name.startswith(("checkpoints/", "models/"))]
    if not weights:
        return author(
            "A finished run made the predictions." if facts.external else "", facts.at("manifest.json", "run")
        )
    return answered(
        f"ehrdl predict applies the {len(weights)} model files of the run, whose hashes the manifest holds, "
        "with the data settings of config.yaml and spec.json.",
        facts.at("manifest.json", "files", weights[0]),
        facts.at("manifest.json", "files", "config.yaml"),
        facts.at("manifest.json", "files", "spec.json"),
    )


def specification(facts: Facts) -> Answer:
    """Return where the full models are, for use on new patients."""
    found = calculated(facts)
    if found.status != "answered":
        return found
    return answered(
        found.text, *found.evidence, left="Who may obtain and use the files. They are made of patient data."
    )


def code(facts: Facts) -> Answer:
    """Return the version of the code and the command of the run."""
    version, commit = (facts.get("manifest.json", key) for key in ("ehrdl", "git"))
    if not version:
        return author()
    command = facts.get("manifest.json", "command")
    ran = f" The command was: {in_command(str(command))}." if command else ""
    seeds = facts.get("manifest.json", "seeds")
    seeded = f" Seeds: {listed(list(map(str, seeds)))}." if seeds else ""
    unsaved = " Its files differ from that commit." if str(commit).endswith("-dirty") else ""
    at = f", commit {commit}" if commit else ""
    return answered(
        f"The code is ehrdl {version}{at}.{unsaved}{ran}{seeded}",
        *(facts.at("manifest.json", key) for key in ("ehrdl", "git", "command", "seeds", "versions")),
        left="Where the code and the configuration are published.",
    )


def data_sharing(facts: Facts) -> Answer:
    """Return where the data can be obtained; simulated data can be made again."""
    at = facts.at("config.yaml", "data", "source", "class_path")
    if facts.summary["simulated"]:
        return answered("The data are simulated, and config.yaml makes them again.", at)
    return author()
