"""Results by what was present, against scikit-learn on each part."""

import json

import numpy as np
import pandas as pd
import pytest
from known import evaluate
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from ehrdl.metrics.bootstrap import interval, subject_draws
from ehrdl.metrics.by_modality import MIN_EVENTS, STRATA, by_present

SHARES = {"notes and series": 0.6, "notes only": 0.25, "series only": 0.12, "neither": 0.03}


@pytest.fixture(scope="module")
def table():
    """PREDICTIONS of a model with two seeds and of a baseline, several samples a patient."""
    rng = np.random.default_rng(0)
    n = 500
    risk = rng.normal(-1, 1.2, n)
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.sort(rng.integers(0, 200, n))})
    base["label"] = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(np.float32)
    base["group_present"] = rng.choice(list(SHARES), n, p=list(SHARES.values()))
    base = base.assign(split="held_out", output="death", prediction_time=pd.Timestamp("2150"), prob_calibrated=np.nan)
    frames = []
    for model, seed, noise in (("fused", 0, 0.3), ("fused", 1, 0.6), ("bag_of_words", 0, 1.0)):
        prob = 1 / (1 + np.exp(-risk - noise * rng.normal(size=n)))
        frames.append(base.assign(model=model, seed=seed, prob=prob))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def present(table):
    return evaluate(table, n_bootstrap=50, seed=3)["outputs"]["death"]["present"]


def test_every_stratum_is_counted_and_they_add_up_to_the_whole(table, present):
    assert list(present) == list(STRATA)
    one = table[(table.model == "fused") & (table.seed == 0)]
    for name, part in present.items():
        rows = one[one.group_present == name]
        assert (part["n"], part["events"], part["subjects"]) == (len(rows), rows.label.sum(), rows.subject_id.nunique())
    assert sum(part["n"] for part in present.values()) == len(one)


@pytest.mark.parametrize("name", ["notes and series", "notes only", "series only"])
def test_values_are_scikit_learns_mean_over_seeds_and_intervals_are_draws_of_patients(table, present, name):
    for model in ("fused", "bag_of_words"):
        fits = [rows.reset_index(drop=True) for _, rows in table[table.model == model].groupby("seed")]
        subjects, place = np.unique(fits[0].subject_id, return_inverse=True)
        member = (fits[0].group_present == name).to_numpy()
        counts = np.concatenate(list(subject_draws(len(subjects), 50, 3, len(member))))[:, place[member]]
        for metric, score in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
            parts = [rows[member] for rows in fits]
            value = np.mean([score(rows.label, rows.prob) for rows in parts])
            draws = [np.mean([score(r.label, r.prob, sample_weight=w) for r in parts]) for w in counts]
            got = present[name]["models"][model][metric]
            assert got["value"] == pytest.approx(value)
            assert (got["low"], got["high"]) == pytest.approx(interval(np.array(draws)))


def test_a_stratum_with_few_events_is_counted_and_not_scored(present):
    assert present["neither"]["events"] < MIN_EVENTS
    assert present["neither"]["models"] == {}
    assert all(part["models"] for name, part in present.items() if name != "neither")


def test_unknown_labels_are_left_out(table):
    some = table.assign(label=table.label.where(table.sample_id >= 100))
    part = evaluate(some, n_bootstrap=5)["outputs"]["death"]["present"]
    assert sum(stratum["n"] for stratum in part.values()) == 400


def test_predictions_of_older_versions_have_no_strata(table):
    old = evaluate(table.drop(columns="group_present"), n_bootstrap=5)
    assert old["outputs"]["death"]["present"] == {}
    assert json.loads(json.dumps(old, allow_nan=False)) == old


def test_a_stratum_that_nobody_is_in_is_left_out():
    rows = pd.DataFrame({"subject_id": range(40), "label": [0.0, 1.0] * 20, "group_present": "notes only"})
    found = by_present(rows, {"fused": np.linspace(0, 1, 40)[None]}, n_bootstrap=20, seed=0)
    assert list(found) == ["notes only"]
    assert found["notes only"]["models"]["fused"]["auroc"]["value"] == pytest.approx(
        roc_auc_score(rows.label, range(40))
    )


NUMERIC = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}


@pytest.fixture(scope="module")
def days(table):
    """The same patients with a regression output: PREDICTIONS, and its results by what was present."""
    rng = np.random.default_rng(4)
    label = dict(enumerate(rng.gamma(2.0, 2.0, 500)))
    made = table.assign(label=table.sample_id.map(label), output="days", prob=np.nan)
    made["value"] = made.label + rng.normal(size=len(made)) * (1 + made.seed)
    few = made.sample_id.isin(made.sample_id[made.group_present == "neither"].unique()[9:])
    made = made[~few]
    return made, evaluate(made, n_bootstrap=50, seed=3)["outputs"]["days"]["present"]


@pytest.mark.parametrize("name", ["notes and series", "notes only", "series only"])
def test_a_regression_output_has_its_own_metrics_in_every_stratum(days, name):
    made, present = days
    for model in ("fused", "bag_of_words"):
        fits = [rows.reset_index(drop=True) for _, rows in made[made.model == model].groupby("seed")]
        subjects, place = np.unique(fits[0].subject_id, return_inverse=True)
        member = (fits[0].group_present == name).to_numpy()
        counts = np.concatenate(list(subject_draws(len(subjects), 50, 3, len(member))))[:, place[member]]
        parts = [rows[member] for rows in fits]
        assert (present[name]["n"], present[name]["events"]) == (member.sum(), None)
        for metric, score in NUMERIC.items():
            draws = [np.mean([score(r.label, r.value, sample_weight=w) for r in parts]) for w in counts]
            got = present[name]["models"][model][metric]
            assert got["value"] == pytest.approx(np.mean([score(r.label, r.value) for r in parts]))
            assert (got["low"], got["high"]) == pytest.approx(interval(np.array(draws)))


def test_a_stratum_of_few_numbers_is_counted_and_not_scored(days):
    _, present = days
    assert 0 < present["neither"]["n"] < MIN_EVENTS and present["neither"]["models"] == {}
