"""A probe of presence: how well do times and missingness predict the outcome, without any value?

When a test is ordered says a lot about a patient: for 118 of 174 laboratory tests, its hour and frequency predicted
survival better than its value (Agniel, Kohane and Weber, BMJ 2018;361:k1479). So a good score is no leak in itself. It
becomes one where measuring follows the outcome. Nobody can tell both apart from a score alone, and therefore the limits
are wide.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from ehrdl.audit.audited import Audited
from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.discrimination import auroc
from ehrdl.models.baselines.scores import NOT_DEPLOYABLE
from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified
from ehrdl.schema import HELD_OUT, TRAIN
from ehrdl.training.predict import TRUTH

#: The highest AUROC that the times of measurements may have if the task names no highest credible one.
LIMIT = 0.9
#: From this AUROC on, the model must not come this close to the best model of the run: (its AUROC - 0.5) is compared.
SUSPICIOUS, SHARE = 0.8, 0.95
_N_DRAWS = 200
_TIMES = ("__count", "__hours_since_last")


def probe_shadow(run: Audited) -> Check:
    """Fit a model of times and missingness to each yes-or-no output, and return the check of the highest score."""
    found, reasons = {}, []
    for output in run.binary:
        if reason := run.too_few(output):
            reasons.append(reason)
        else:
            found[output] = _score(run, output)
    if not found:
        return not_verified("shadow", f"{reasons[0]}." if reasons else "No output is yes or no.")
    failed = [name for name, one in found.items() if one["above"]]
    output = failed[0] if failed else max(found, key=lambda name: float(found[name]["auroc"]))
    return Check("shadow", FAIL if failed else PASS, {"output": output} | found[output] | {"outputs": found})


def _score(run: Audited, output: str) -> dict[str, float | bool]:
    known, label = run.known(output, TRAIN)
    at, truth = run.known(output, HELD_OUT)
    model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, early_stopping=False, random_state=run.seed)
    model.fit(_presence(run, TRAIN)[known], label)
    prob = model.predict_proba(_presence(run, HELD_OUT)[at])[:, 1]
    value, best = float(auroc(truth, prob)), _best(run, output)
    _, who = np.unique(run.subjects(HELD_OUT)[at], return_inverse=True)
    draws = subject_draws(int(who.max()) + 1, _N_DRAWS, run.seed, len(truth))
    low, high = interval(np.concatenate([np.atleast_1d(auroc(truth, prob, draw[:, who])) for draw in draws]))
    ceiling = run.cohort.task.ceiling(output) or LIMIT
    limit = min(ceiling, max(SUSPICIOUS, 0.5 + SHARE * (best - 0.5)))
    return {"auroc": value, "low": low, "high": high, "best": best, "limit": limit, "above": low >= limit}


def _presence(run: Audited, split: str) -> np.ndarray:
    """Return what was measured, how often and when, and the time of the prediction (n, F), for a split's rows."""
    table = run.values(split)
    numeric = [channel.name for channel in run.cohort.prepared.dataset.channels if channel.kind == "numeric"]
    names = [f"{name}{kind}" for name in numeric for kind in _TIMES]
    rows = run.rows[split]
    dataset = run.cohort.prepared.dataset
    time = pd.DatetimeIndex(run.samples.prediction_time.iloc[rows])
    further = [dataset.n_observations(rows), dataset.seen_notes(rows)[1], time.hour, time.day_of_week]
    return np.column_stack([table[names].to_numpy(float), *[np.asarray(column, float) for column in further]])


def _best(run: Audited, output: str) -> float:
    """Return the highest AUROC on the same rows of any model that could be used, with the first seed."""
    samples = run.samples.sample_id.to_numpy()[run.rows[HELD_OUT]]
    table = run.predictions
    rows = table[(table.output == output) & (table.seed == run.seed) & table.label.notna()]
    rows = rows[rows.sample_id.isin(samples) & ~rows.model.isin([*NOT_DEPLOYABLE, TRUTH.name])]
    return max(float(auroc(part.label, part.prob)) for _, part in rows.groupby("model"))
