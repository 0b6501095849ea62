"""Probes of time: do the run's own models predict the same when everything after the prediction is changed?

The probe begins at EVENTS. A fact enters a model through the series store, the notes, the records, the static features
or the table, and all of these are made again from the changed facts. So a leak anywhere behind the source is seen. What
a source says about the time of a fact is not: only two rules about it are checked (`early`, `own_codes`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ehrdl.audit.audited import Audited
from ehrdl.audit.facts import Copies, choose, copy_facts
from ehrdl.comparators.saved import baseline_probs, load_deep
from ehrdl.data.apply import Fitted, apply
from ehrdl.data.module import ClinicalDataModule
from ehrdl.models.baselines.scores import NOT_DEPLOYABLE
from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified
from ehrdl.training.predict import predict

#: The largest difference of two predictions that count as equal.
TOLERANCE = 1e-6
#: The largest difference to the run's own predictions, which were made in other batches, perhaps in half precision.
_REPRODUCED = 0.05
#: Predictions (n, K) of the chosen samples, by model.
Predicted = dict[str, np.ndarray]


def probe_time(run: Audited) -> list[Check]:
    """Make the checks `future`, `early` and `own_codes` on the facts of some held-out patients."""
    chosen = choose(run.samples, run.seed)
    prepare = run.cohort.data.prepare
    Path(prepare.cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=prepare.cache) as made:
        copies = copy_facts(run.cohort.prepared.events, chosen, Path(made), prepare)
        return [_compare(run, copies), _early(copies), _own_codes(copies)]


def _early(copies: Copies) -> Check:
    evidence = {name: copies.counts[name] for name in ("n_facts", "n_early")}
    if copies.counts["n_early"]:
        return Check("early", FAIL, evidence | {"example": copies.examples["early"]})
    return Check("early", PASS, evidence)


def _own_codes(copies: Copies) -> Check:
    evidence = {name: copies.counts[name] for name in ("n_codes", "n_visible")}
    if not copies.counts["n_codes"]:
        return not_verified("own_codes", "No stay has billing codes and a discharge that follows the prediction.")
    if copies.counts["n_visible"]:
        return Check("own_codes", FAIL, evidence | {"example": copies.examples["own_codes"]})
    return Check("own_codes", PASS, evidence)


def _compare(run: Audited, copies: Copies) -> Check:
    """Predict from both copies and compare."""
    before, after = (dict(_predict(run, copies, events)) for events in (copies.unchanged, copies.changed))
    if not before:
        return not_verified("future", "The run has no model that reads the patients' facts.")
    off = {name: gap for name, gap in _gaps_to_run(run, copies, before).items() if gap > _REPRODUCED}
    if off:
        worst = max(off, key=lambda name: off[name])
        return not_verified(
            "future", f"The probe did not repeat the run's own predictions: {worst} is off by {off[worst]:.3f}."
        )
    gaps = {name: float(np.abs(before[name] - after[name]).max(initial=0.0)) for name in before}
    wrong = [name for name, gap in gaps.items() if not gap <= TOLERANCE]
    evidence: dict[str, Any] = {
        "n_models": len(before),
        "n_samples": len(copies.chosen),
        "n_changed": copies.counts["n_changed"],
        "n_wrong": len(wrong),
        "wrong": wrong,
        "largest": max(gaps.values()),
        "by_model": gaps,
    }
    return Check("future", FAIL if wrong else PASS, evidence)


def _predict(run: Audited, copies: Copies, events: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the predictions (n, K) of the chosen samples by each model of the run, from a copy of EVENTS.

    Of a deep model, the first seed is used. Averages and stacks are left out, since they read nothing but the others'
    predictions, and so are scores that nobody could deploy, which read later codes on purpose.
    """
    cohort, cache = run.cohort, f"{events}-cache"
    local = replace(cohort.data.prepare, cache=cache, workers=1, n_shards=1, engine="local", scheduler=None)
    data = replace(cohort.data, prepare=local, batch=replace(cohort.data.batch, num_workers=0))
    samples = copies.chosen.drop(columns="split").reset_index(drop=True)
    result = replace(cohort.result, samples=samples.assign(sample_id=np.arange(len(samples), dtype=np.int64)))
    ours = cohort.prepared
    prepared, _ = apply(data, events, result, Fitted(ours.spec, ours.tokenizer, None))
    models = run.folder / "models"
    files = [path.name for path in sorted(models.glob("*")) if not path.name.startswith(NOT_DEPLOYABLE)]
    yield from baseline_probs(models, prepared, files)
    module = ClinicalDataModule(prepared, data.batch)
    for path in sorted((run.folder / "checkpoints").glob("*.ckpt")):
        if not path.name.endswith(f"-seed{run.seed}.ckpt"):
            continue
        rows, prob = predict(load_deep(path, run.make, cache), module.every_dataloader(), run.trainer)
        yield path.stem.removesuffix(f"-seed{run.seed}"), prob[np.argsort(rows)]


def _gaps_to_run(run: Audited, copies: Copies, found: Predicted) -> dict[str, float]:
    """Return the largest difference between each model's predictions of the probe and those of the run."""
    outputs = [output.name for output in run.cohort.prepared.spec.outputs]
    own = run.predictions[(run.predictions.seed == run.seed) & run.predictions.sample_id.isin(copies.chosen.sample_id)]
    own = own.assign(predicted=own.prob.fillna(own.value))
    gaps = {}
    for name, rows in own.groupby("model", sort=False):
        if name in found:
            table = rows.pivot(index="sample_id", columns="output", values="predicted")
            there = table.loc[copies.chosen.sample_id, outputs].to_numpy()
            gaps[str(name)] = float(np.abs(there - found[str(name)]).max(initial=0.0))
    return gaps
