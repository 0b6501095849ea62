"""A probe of the scoring: with permuted training labels, a model must know nothing about held-out patients.

One fit may point at the risk or away from it by chance, so the mean over many permutations is judged. A ridge
regression fits them all at once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ehrdl.audit.audited import Audited
from ehrdl.metrics.discrimination import auroc
from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified
from ehrdl.schema import HELD_OUT, TRAIN

N_PERMUTATIONS = 50
#: A mean that is further from 0.5 than this and than three standard errors fails. With rare outcomes, permutations are
#: not symmetric, and a mean is off by a little.
MARGIN = 0.02
_PENALTY = 100.0


def probe_permuted(run: Audited) -> Check:
    """Fit a model to permuted labels of each yes-or-no output, and return the check of the worst output."""
    worst, reasons = {}, []
    for output in run.binary:
        if reason := run.too_few(output):
            reasons.append(reason)
            continue
        parts = []
        for split in (TRAIN, HELD_OUT):
            known, label = run.known(output, split)
            parts.append((run.values(split)[known], label))
        worst[output] = judge(permuted_scores(*parts[0], *parts[1], run.seed))
    if not worst:
        return not_verified("permuted", f"{reasons[0]}." if reasons else "No output is yes or no.")
    output = max(worst, key=lambda name: abs(float(worst[name]["auroc"]) - 0.5))
    failed = [name for name, found in worst.items() if found["off"]]
    output = failed[0] if failed else output
    evidence = {"output": output, "permutations": N_PERMUTATIONS} | worst[output] | {"outputs": worst}
    return Check("permuted", FAIL if failed else PASS, evidence)


def permuted_scores(
    train: pd.DataFrame, label: np.ndarray, others: pd.DataFrame, truth: np.ndarray, seed: int
) -> np.ndarray:
    """Return the AUROC (R,) on other patients of R fits, each to another permutation of the training labels.

    Args:
        train: the features of the training samples.
        label: (n,) their labels, 0 or 1.
        others: the features of held-out samples.
        truth: (m,) their labels, 0 or 1.
        seed: the seed of the permutations.
    """
    draw = np.random.default_rng(seed)
    permuted = np.stack([draw.permutation(label) for _ in range(N_PERMUTATIONS)], axis=1)
    return scores_of(train, permuted, others, truth)


def scores_of(train: pd.DataFrame, labels: np.ndarray, others: pd.DataFrame, truth: np.ndarray) -> np.ndarray:
    """Return the AUROC (R,) on other patients of a ridge regression of each column of labels (n, R)."""
    model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), Ridge(_PENALTY))
    found = model.fit(train.to_numpy(), labels).predict(others.to_numpy())
    return np.array([float(auroc(truth, column)) for column in found.T])


def judge(scores: np.ndarray) -> dict[str, float | bool]:
    """Return the mean of AUROCs with an interval of three standard errors, and whether it is `off` 0.5.

    >>> judge(np.array([0.4, 0.6, 0.5]))["off"], judge(np.array([0.7, 0.71, 0.72]))["off"]
    (False, True)
    """
    mean, error = float(scores.mean()), float(scores.std(ddof=1)) / float(np.sqrt(len(scores)))
    off = abs(mean - 0.5) > max(3 * error, MARGIN)
    return {"auroc": mean, "low": mean - 3 * error, "high": mean + 3 * error, "off": off}
