"""A probe of single features: does one column, its absence or one word give the outcome away?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer

from ehrdl.audit.audited import FEWEST, Audited
from ehrdl.metrics.discrimination import auroc
from ehrdl.models.baselines.tabular import shared_phrases
from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified
from ehrdl.schema import HELD_OUT, TRAIN

#: The highest AUROC of a single feature if the task names no highest credible one. Severity scores of a whole ICU day
#: reach about 0.85 for death (APACHE III: Knaus et al., Chest 1991;100:1619); no single honest measurement does more.
LIMIT = 0.95
#: The share of runs in which any feature may be above the limit by chance alone.
_BY_CHANCE = 0.001
#: The largest number of samples of a split whose notes are read.
_MOST_TEXTS = 1000
#: Rows where a feature is known (n,), and its values there.
Feature = tuple[str, np.ndarray, np.ndarray]


def probe_single(run: Audited) -> Check:
    """Score each feature alone on each yes-or-no output, and return the check of the highest AUROC."""
    outputs = [output for output in run.binary if not run.too_few(output)]
    if not outputs:  # else each output has enough samples of both classes, and so at least one feature
        reasons = [run.too_few(output) for output in run.binary]
        return not_verified("single", f"{reasons[0]}." if reasons else "No output is yes or no.")
    features = [*_columns(run), *_words(run)]
    found = {output: _score(run, output, features) for output in outputs}
    output = max(found, key=lambda name: (found[name]["n_above"], found[name]["auroc"]))
    evidence = {"output": output} | found[output] | {"outputs": found}
    return Check("single", FAIL if found[output]["n_above"] else PASS, evidence)


def _score(run: Audited, output: str, features: list[Feature]) -> dict[str, float | int | str | list[str]]:
    known, label = run.known(output, HELD_OUT)
    truth = np.full(len(known), np.nan)
    truth[known] = label
    limit = run.cohort.task.ceiling(output) or LIMIT
    found, own_limit = {}, {}
    for name, where, value in features:
        keep = where & known
        events, n = int((truth[keep] == 1).sum()), int(keep.sum())
        if min(events, n - events) >= FEWEST:
            one = float(auroc(truth[keep], value[keep]))
            found[name] = max(one, 1 - one)
            own_limit[name] = max(limit, _by_chance(events, n - events, len(features)))
    above = [name for name in found if found[name] > own_limit[name]]
    closest = max(found, key=lambda name: found[name] - own_limit[name])
    return {
        "feature": closest,
        "auroc": found[closest],
        "limit": own_limit[closest],
        "n_features": len(found),
        "n_above": len(above),
        "above": above[:20],
    }


def _by_chance(events: int, others: int, n_features: int) -> float:
    """Return the AUROC that the best of so many features without information almost never exceeds.

    The AUROC of such a feature is Mann and Whitney's U over its pairs, with the standard error
    sqrt((n1 + n0 + 1) / (12 n1 n0)).
    """
    error = np.sqrt((events + others + 1) / (12 * events * others))
    return float(min(0.5 + norm.isf(_BY_CHANCE / (2 * n_features)) * error, 0.999))


def _columns(run: Audited) -> Iterator[Feature]:
    """Yield each column of the table where it is known, and whether it is missing."""
    table = run.values(HELD_OUT)
    every = np.ones(len(table), bool)
    for name in table.columns:
        value = table[name].to_numpy(float)
        missing = np.isnan(value)
        yield str(name), ~missing, value
        if name.endswith(("__last", "__hours_since_last")) and 0 < missing.sum() < len(value):
            yield f"{name} is missing", every, missing.astype(float)


def _words(run: Audited) -> Iterator[Feature]:
    """Yield for each word of enough training patients' notes whether the samples see it. Other words may be names."""
    text = {split: table.text.head(_MOST_TEXTS) for split, table in run.tables.items()}
    subjects = run.subjects(TRAIN)[:_MOST_TEXTS]
    least = max(FEWEST, run.cohort.prepared.min_patients)
    words = [word for word in shared_phrases(text[TRAIN], subjects, least) if " " not in word]
    if not words:
        return
    seen = CountVectorizer(vocabulary=words, binary=True).transform(text[HELD_OUT]).tocsc()
    where = np.arange(len(run.tables[HELD_OUT])) < len(text[HELD_OUT])
    for i, word in enumerate(words):
        value = np.zeros(len(where))
        value[seen.indices[seen.indptr[i] : seen.indptr[i + 1]]] = 1
        yield f"the word {word!r}", where, value
