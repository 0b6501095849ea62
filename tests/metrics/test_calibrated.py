"""Metrics after recalibration are those of `evaluate` on the recalibrated risks, draw by draw."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.metrics.calibrated import OF_CALIBRATION, add, recalibrated
from ehrdl.metrics.calibration import logit, sigmoid
from ehrdl.metrics.evaluate import evaluate


@pytest.fixture(scope="module")
def table():
    """Two outputs, two models, two seeds of `fused`; `lace` has no calibrator. Some labels are unknown."""
    rng = np.random.default_rng(3)
    n, frames = 400, []
    for output in ("death", "return"):
        odds = rng.normal(-1, 1, n)
        label = (rng.random(n) < sigmoid(odds)).astype(float)
        label[:: 37 if output == "death" else 41] = np.nan
        for model, seed in (("fused", 0), ("fused", 1), ("lace", 0)):
            prob = sigmoid(2 * odds + rng.normal(0, 0.2, n))
            after = sigmoid(logit(prob) / 2) if model == "fused" else np.nan
            columns = {"sample_id": range(n), "subject_id": np.arange(n) // 2, "split": "held_out", "label": label}
            columns |= {"model": model, "seed": seed, "output": output, "prob": prob, "prob_calibrated": after}
            frames.append(pd.DataFrame(columns).assign(prediction_time=pd.Timestamp("2150"), value=np.nan))
    return pd.concat(frames, ignore_index=True)


def test_they_are_those_of_evaluate_with_the_same_draws(table):
    found = recalibrated(table, "held_out", n_bootstrap=60)
    as_prob = table[table.model == "fused"].assign(prob=lambda rows: rows.prob_calibrated)
    expected = evaluate(as_prob, n_bootstrap=60)["outputs"]
    assert set(found) == {"death", "return"}
    for output, models in found.items():
        assert set(models) == {"fused"}
        for metric in OF_CALIBRATION:
            wanted = expected[output]["models"]["fused"][metric]
            assert models["fused"][metric] == pytest.approx({key: wanted[key] for key in ("value", "low", "high")})


def test_recalibration_that_mends_the_slope_shows(table):
    before = evaluate(table, n_bootstrap=5)
    after = add(before, recalibrated(table, "held_out", n_bootstrap=5))["outputs"]["death"]
    assert after["models"]["fused"]["calibration_slope"]["value"] < 0.6
    assert after["calibrated"]["fused"]["calibration_slope"]["value"] == pytest.approx(1, abs=0.2)
    assert {key: value for key, value in after.items() if key != "calibrated"} == before["outputs"]["death"]


def test_without_a_calibrator_nothing_is_added(table):
    plain = table.assign(prob_calibrated=np.nan)
    assert recalibrated(plain, "held_out", n_bootstrap=5) == {}
    metrics = evaluate(plain, n_bootstrap=5)
    assert add(metrics, {}) == metrics


def test_an_output_that_is_a_number_has_none_and_shares_the_draws(table):
    number = table[table.output == "death"].assign(output="days", value=3.0, prob=np.nan, prob_calibrated=np.nan)
    number["label"] = np.arange(len(number), dtype=float)[: len(number)] % 400
    number["subject_id"] += 1000
    both = pd.concat([table, number], ignore_index=True)
    found = recalibrated(both, "held_out", n_bootstrap=40)
    as_prob = both.assign(prob=both.prob_calibrated.fillna(both.prob))
    expected = evaluate(as_prob, n_bootstrap=40)["outputs"]["death"]["models"]["fused"]["brier"]
    assert set(found) == {"death", "return"}
    assert found["death"]["fused"]["brier"] == pytest.approx({key: expected[key] for key in ("value", "low", "high")})
