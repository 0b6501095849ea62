"""Writes the model card of a run: what the model is, for whom, how good, and where its limits are.

The headings follow Mitchell et al., FAT* 2019 (arXiv:1810.03993). All numbers come from the content of the report, in
which small groups of patients are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ehrdl.report.checklists.facts import FAILED, Facts
from ehrdl.report.checklists.inputs import brief
from ehrdl.report.page.html import estimate, number, per_hundred, percent
from ehrdl.report.places import in_command
from ehrdl.schema import REGRESSION

#: The most rows of groups that a card shows, so that it stays short.
MOST_GROUPS = 12


def model_card(facts: Facts, checklists: Mapping[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        facts: what is known about the run.
        checklists: the checklists, from `fill`. The card names the items that failed.
    """
    environment = Environment(  # the text is Markdown, in which `plain` escapes what others wrote
        loader=PackageLoader("ehrdl.report.page", "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "estimate": estimate,
        "percent": percent,
        "per_hundred": per_hundred,
        "number": number,
        "value": _value,
    }
    answers = {item["id"]: item for part in checklists.values() for item in part["items"]}
    wrong = [item for part in checklists.values() for item in part["items"] if item["status"] == FAILED]
    text = environment.get_template("model_card.md").render(
        s=facts.summary,
        facts=facts,
        answers=answers,
        failed=_once(wrong),
        outputs=[_output(output, facts.of_model) for output in facts.outputs],
        hidden=facts.hidden,
        inputs=brief(facts) or "For the author: what the models read.",
        run=_run(facts),
        min_count=facts.min_count,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(text: Any) -> str:
    r"""Escape a text, such as a group's name, so that Markdown shows it as it is.

    >>> plain("<65 | *all*\n[x]")
    '\\<65 \\| \\*all\\* \\[x\\]'
    """
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def _value(value: Any) -> str:
    """Format a number of a group, with its interval if it has one."""
    if isinstance(value, Mapping):
        return estimate(dict(value))
    return plain(number(value))


def _once(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the failed items that have the same answer, and list their numbers."""
    found: dict[str, list[str]] = {}
    for item in items:
        found.setdefault(item["answer"], []).append(item["id"])
    return [{"answer": answer, "ids": ", ".join(ids)} for answer, ids in found.items()]


def _output(output: Mapping[str, Any], of_model: Any) -> dict[str, Any]:
    """Return the part of the card on one output: the reference, the best baseline, calibration, alarms and groups."""
    first = output["headline"]
    names = [name for name in (output["reference"], first.get("baseline")) if name]
    kinds = {row["name"]: row.get("kind") for row in output["models"]}
    scores = [{"name": name, "kind": kinds[name], "metrics": of_model(output, name)} for name in names]
    rules = output.get("alarms") or []
    alarms = [{"title": rule["title"], "rows": [row for row in rule["rows"] if row["name"] in names]} for rule in rules]
    alarms.sort(key=lambda rule: -len(rule["rows"]))  # the first rule at which both may be shown
    rows = [
        {"group": group["name"], **row}
        for group in output["groups"]
        for row in group["rows"]
        if not isinstance(row.get("n"), str) and not group.get("is_pair")
    ]
    return {
        "name": output["name"],
        "is_number": output["kind"] == REGRESSION,
        "output": output,
        "scores": scores,
        "calibration": [] if output["kind"] == REGRESSION else _calibration(scores[0]["metrics"]),
        "alarms": [rule for rule in alarms if rule["rows"]],
        "groups": rows[:MOST_GROUPS],
        "more_groups": max(0, len(rows) - MOST_GROUPS),
    }


def _calibration(scores: Mapping[str, Any]) -> list[str]:
    """Say what slope and intercept of the calibration mean, as far as their intervals tell."""
    texts = []
    for key, name, ideal, below, above in (
        ("calibration_intercept", "Intercept", 0.0, "risks are too high on average", "risks are too low on average"),
        ("calibration_slope", "Slope", 1.0, "risks are too extreme", "risks differ too little between patients"),
    ):
        score = scores.get(key) or {}
        if score.get("value") is None:
            texts.append(f"{name}: n/a.")
            continue
        low, high = score.get("low"), score.get("high")
        verdict = "the interval includes the ideal"
        if low is None or high is None:
            verdict = "there is no interval"
        elif high < ideal:
            verdict = below
        elif low > ideal:
            verdict = above
        texts.append(f"{name} {estimate(dict(score))}, ideal {ideal:g}: {verdict}.")
    return texts


def _run(facts: Facts) -> dict[str, Any]:
    """Return what is needed to make the run again: command, versions, seeds and hashes."""
    command = facts.get("manifest.json", "command")
    files = facts.get("manifest.json", "files") or {}
    kept = ("config.yaml", "spec.json", "calibration.json")
    return {
        "command": in_command(str(command)) if command else "",
        "source": facts.get("manifest.json", "source"),
        "ehrdl": facts.get("manifest.json", "ehrdl"),
        "git": facts.get("manifest.json", "git"),
        "created": facts.get("manifest.json", "created"),
        "seeds": ", ".join(map(str, facts.get("manifest.json", "seeds") or [])),
        "versions": facts.get("manifest.json", "versions") or {},
        "hashes": {name: files[name]["sha256"] for name in kept if name in files},
        "n_files": len(files),
        "models": [one["name"] for one in facts.get("manifest.json", "models") or []],
    }
