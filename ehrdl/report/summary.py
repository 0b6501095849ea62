"""The content of the report as a plain dict, separate from its layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import pandas as pd

from ehrdl.info import RunInfo
from ehrdl.metrics.catalogue import BY_KIND, METRICS
from ehrdl.metrics.evaluate import Outcome, line_up
from ehrdl.report.cohort.parts import data_parts
from ehrdl.report.leak_audit import audit_rows
from ehrdl.report.outcomes.binary import describe
from ehrdl.report.outcomes.calibration import how_calibrated
from ehrdl.report.outcomes.numeric import describe_numeric
from ehrdl.report.outcomes.ranking import differences, rank, reference_of
from ehrdl.report.overview import general_use
from ehrdl.report.places import in_command, in_config, in_text
from ehrdl.report.predictions import Predictions
from ehrdl.report.suppress import Shown, any_few, hide_counts, hide_sizes, hide_steps, hides
from ehrdl.runs.info import run_info
from ehrdl.schema import BINARY, HELD_OUT, REGRESSION

Json = Mapping[str, Any]

#: The name of a modality in a sentence.
_INPUTS = {"note": "the clinical notes", "series": "labs and vital signs"}
LIMITS = (
    "This is research software, not a medical device: do not use it to decide on the care of a patient.",
    "Performance in another hospital, another period or another population is unknown until it is measured there.",
    "The best baseline was picked on the same patients that it is scored on, which flatters it slightly.",
    "A difference between groups may come from their size, their case mix or how they were recorded.",
)
_LIMITS_FOREIGN = (
    *LIMITS[:2],
    "Whether a model was fitted or chosen on these very rows is unknown; if it was, it is flattered.",
    "The models are sorted by the score that is shown, which flatters the first.",
    LIMITS[-1],
)


def summarize(
    predictions: pd.DataFrame,
    metrics: Json,
    flow: Json | None = None,
    manifest: Json | None = None,
    config: Json | None = None,
    min_count: int = 10,
    leak_audit: Json | None = None,
) -> dict[str, Any]:
    """Collect the content of the report. Small groups of patients and file paths are left out.

    Args:
        predictions: the PREDICTIONS table.
        metrics: the result of `evaluate` for this table.
        flow: the cohort's `steps`, `notes` and `caveats` (flow.json), if known.
        manifest: the run's manifest (manifest.json), if known.
        config: the resolved config, if known.
        min_count: the smallest number of patients in a group that is shown.
        leak_audit: the content of leak_audit.json, if known.

    Returns:
        A dict of plain values that `json.dumps` accepts.
    """
    flow, manifest, config = (_known(part) for part in (flow, manifest, config))
    outcomes = line_up(predictions, metrics["split"])
    info = run_info(manifest)
    shown = Shown(min_count, info)
    outputs = _outputs(outcomes, metrics, shown)
    steps, notes = flow.get("steps", []), dict(flow.get("notes", {}))
    caveats = [str(line) for line in (*flow.get("caveats", []), *notes.pop("caveats", []))]
    title, sentence = _what(manifest, outcomes[0], info)
    total = steps[-1].get("admissions") if steps else None
    chart = _steps(steps, shown)
    data = data_parts(chart, flow, manifest, config, any_few(outputs), shown)
    audit = audit_rows(leak_audit or {}, shown, hides(outputs), config.get("audit") is False)
    return data | {
        "title": title,
        "sentence": sentence,
        "scored": f"Scored on the {metrics['split'].replace('_', '-')} patients"
        + (", whom no model was trained on." if metrics["split"] == HELD_OUT else "."),
        "assumed": [],
        "independent": False,
        "simulated": bool(info.named("truth", among=outcomes[0].prob)),
        "split": metrics["split"],
        "calibration": how_calibrated(manifest),
        "metrics": list(METRICS),
        "outputs": outputs,
        "averages": [] if hides(outputs) else _averages(metrics, [output["kind"] for output in outputs], info),
        "flow": chart,
        "notes": [
            {"name": _words(key), "rows": _flat(hide_counts(value, shown, total))} for key, value in notes.items()
        ],
        "missing": [] if data["validation"] else _texts(manifest.get("missing", [])),
        "warnings": _texts(manifest.get("warnings", [])),
        "quality": _quality(manifest, shown),
        "leak_audit": audit,
        "use": general_use(audit, bool(data["validation"])),
        "data": _flat(hide_sizes(manifest.get("data", {}), shown, any_few(outputs))),
        "run": _run(manifest),
        "config": json.dumps(in_config(config), indent=2, default=str, ensure_ascii=False) if config else "",
        "limits": [*map(in_text, caveats), *LIMITS],
    }


def _known(part: Json | None) -> dict[str, Any]:
    """Return the content of a run's file, without the keys that have no value."""
    return {key: value for key, value in (part or {}).items() if value is not None}


def _texts(lines: list[Any]) -> list[str]:
    return [in_text(str(line)) for line in lines]


def _outputs(outcomes: list[Outcome], metrics: Json, shown: Shown) -> list[dict[str, Any]]:
    return [
        (describe_numeric if outcome.kind == REGRESSION else describe)(
            outcome, metrics["outputs"][outcome.output], shown
        )
        for outcome in outcomes
    ]


def summarize_foreign(read: Predictions, metrics: Json, name: str, min_count: int = 10) -> dict[str, Any]:
    """Collect the content of a report for a PREDICTIONS file that does not belong to a run.

    Such a report shows only what the file itself contains.

    Args:
        read: the content of the file.
        metrics: the result of `evaluate` for its table.
        name: the name of the file.
        min_count: the smallest number of patients in a group that is shown.
    """
    summary = summarize(read.table, metrics, min_count=min_count)
    names = [output["name"] for output in summary["outputs"]]
    return summary | {
        "title": f"Predictions of {names[0]}" if len(names) == 1 else f"Predictions of {len(names)} outputs",
        "sentence": f"Made from {name}. The file does not say who was predicted, when, from what data, and on whom the "
        "models were fitted, so neither does this page.",
        "scored": f"Scored on the rows whose split is {metrics['split']}.",
        "assumed": read.assumed,
        "independent": read.independent,
        "limits": list(_LIMITS_FOREIGN),
    }


def _what(manifest: Json, outcome: Outcome, info: RunInfo) -> tuple[str, str]:
    """Return the title, and a sentence that tells what was predicted, for whom, when and from what."""
    name = _words(str(manifest.get("task") or outcome.output))
    told = manifest.get("task_info") or {"title": name, "sentence": f"Each model gives the chance of {name}."}
    deep = info.named("deep", among=outcome.prob)
    reads = [_INPUTS.get(modality, modality) for modality in (info.models[deep[0]].reads if deep else ())]
    inputs = " together with ".join(reads) or "the patient's record"
    return str(told["title"]), str(told["sentence"]).replace("{inputs}", inputs)


def _averages(metrics: Json, kinds: list[str], info: RunInfo) -> list[dict[str, Any]]:
    """Return macro and micro averages for each kind of output, as table rows.

    A kind needs several outputs. Micro averages exist for binary outputs only.
    """
    which = {BINARY: "yes-or-no outputs", REGRESSION: "outputs that are numbers"}
    result = []
    for kind in BY_KIND:
        if kinds.count(kind) < 2:
            continue
        some = "outputs" if kinds.count(kind) == len(kinds) else which[kind]
        for key, name in (("macro", f"Mean over {some} (macro)"), ("micro", f"All {some} pooled (micro)")):
            if kind == BINARY or key == "macro":
                result.append({"name": name, "metrics": list(BY_KIND[kind]), **_average(metrics[key], kind, info)})
    return result


def _average(part: Json, kind: str, info: RunInfo) -> dict[str, Any]:
    """Return the rows of the models and differences that have metrics of a kind."""
    some = next(iter(BY_KIND[kind]))
    models, told = ({name: row for name, row in part[key].items() if some in row} for key in ("models", "differences"))
    ranked = rank(models, kind)
    reference = reference_of(told, ranked, info)
    rows = [{"name": model, "metrics": models[model]} for model in ranked]
    return {"models": rows, "differences": differences(told, reference, kind)}


def _steps(steps: list[Json], shown: Shown) -> list[dict[str, Any]]:
    """Return the steps of the flow charts, each with the numbers that it dropped. Small numbers are hidden."""
    result: list[dict[str, Any]] = []
    for step in steps:
        row: dict[str, Any] = {"step": _words(str(step.get("step", "")))}
        row |= {key: in_text(str(step.get(key) or "")) for key in ("rule", "caveat")}
        row |= {key: step.get(key) for key in ("admissions", "subjects")}
        row["task"] = _words(str(step.get("task") or ""))
        same = bool(result) and result[-1]["task"] == row["task"]  # each task has its own chart
        for key in ("admissions", "subjects"):
            before, now = (result[-1][key] if same else None), row[key]
            row[f"dropped_{key}"] = before - now if before is not None and now is not None else None
        result.append(row)
    charts = groupby(result, key=lambda row: row["task"])
    return [row for _, chart in charts for row in hide_steps(list(chart), shown)]


def _quality(manifest: Json, shown: Shown) -> list[dict[str, Any]]:
    """Return the manifest's findings on data quality, the serious ones first. Small counts are hidden."""
    columns = ("table", "column", "what", "n", "of", "share", "level")
    rows = [{name: finding.get(name) for name in columns} for finding in manifest.get("quality", [])]
    for row in rows:
        if isinstance(row["n"], int) and 0 < row["n"] < shown.min_count:
            row |= {"n": shown.few, "share": None}
    return rows


def _run(manifest: Json) -> list[dict[str, Any]]:
    """Return the facts about the run, as titled lists of name and value."""
    facts = {
        key: manifest[key]
        for key in ("command", "created", "ehrdl", "git", "task", "seeds", "source")
        if manifest.get(key) not in (None, "", [], {})
    }
    if "command" in facts:
        facts["command"] = in_command(str(facts["command"]))
    parts = {"Run": facts, "Wall time [s]": manifest.get("wall_s"), "Hardware": manifest.get("hardware")}
    parts |= {"Tables read": manifest.get("tables"), "Versions": manifest.get("versions")}
    return [{"name": name, "rows": _flat(value)} for name, value in parts.items() if value]


def _flat(value: Any, name: str = "") -> list[dict[str, Any]]:
    """Flatten nested counts into rows of name and value. A list becomes one text."""
    if isinstance(value, Mapping):
        return [row for key, part in value.items() for row in _flat(part, f"{name}: {key}" if name else str(key))]
    if isinstance(value, list | tuple):
        value = ", ".join(str(part) for part in value)
    known = value if isinstance(value, int | float) or value is None else str(value)
    return [{"name": name.removeprefix("n_").replace("_", " "), "value": known}]


def _words(name: str) -> str:
    """Turn a name into words: `summary_stored` -> `Summary stored`."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]
