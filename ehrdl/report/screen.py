"""Prints a run's cohort on the screen, and its scores at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ehrdl.engine.messages import say
from ehrdl.info import RunInfo
from ehrdl.schema import FlowStep


def print_flow(steps: Iterable[FlowStep]) -> None:
    """Print the cohort's flow chart, one line per step, with the caveat of a step whose rule lacked facts."""
    for step in steps:
        caveat = f"   {step.caveat}" if step.caveat else ""
        say(f"  {step.step:<24} {step.admissions:>9,} admissions {step.subjects:>9,} subjects{caveat}")


def print_metrics(metrics: dict[str, Any], info: RunInfo, folder: Path) -> None:
    """Print the scores of all models and the differences between them, for each output, and the path of the report.

    Args:
        metrics: the content of `metrics.json`.
        info: what is known about the models.
        folder: the run's folder.
    """
    for output, scores in metrics["outputs"].items():
        if scores["prevalence"] is None:
            _print_regression(output, scores)
            continue
        say(f"\n{output}: {scores['n']:,} held-out samples, prevalence {scores['prevalence']:.3f}")
        models = sorted(scores["models"].items(), key=lambda item: -(item[1]["auroc"]["value"] or 0))
        for name, values in models:
            usable = info.deployable(name) or info.kind(name) == "truth"
            mark = "" if usable else "   not deployable"
            if name in scores.get("utility", {}):
                mark = f"   utility {_shown(scores['utility'][name])}"
            say(f"  {name:<22} AUROC {_shown(values['auroc'])}   AUPRC {_shown(values['auprc'])}{mark}")
        for name, values in scores["differences"].items():
            say(f"  {name:<40} AUROC {_shown(values['auroc'], signed=True)}")
    say(f"\nreport: {folder / 'report.html'}")


def _print_regression(output: str, scores: dict[str, Any]) -> None:
    unit = f" {scores['unit']}" if scores["unit"] else ""
    spread = f"mean {scores['label_mean']:.3g}, standard deviation {scores['label_sd']:.3g}{unit}"
    say(f"\n{output}: {scores['n']:,} held-out samples, {spread}")
    for name, values in sorted(scores["models"].items(), key=lambda item: item[1]["mae"]["value"]):
        say(f"  {name:<22} MAE {_shown(values['mae'])}{unit}   R2 {_shown(values['r2'])}")
    for name, values in scores["differences"].items():
        say(f"  {name:<40} MAE {_shown(values['mae'], signed=True)}{unit}")


def _shown(estimate: dict[str, Any], signed: bool = False) -> str:
    if estimate["value"] is None:
        return "undefined"
    form = "+.3f" if signed else ".3f"
    if estimate["low"] is None:
        return f"{estimate['value']:{form}}"
    return f"{estimate['value']:{form}} ({estimate['low']:{form}} to {estimate['high']:{form}})"
