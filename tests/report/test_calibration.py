"""The table of calibration before and after recalibration."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.info import ModelInfo, RunInfo
from ehrdl.metrics.calibrated import add, recalibrated
from ehrdl.metrics.calibration import sigmoid
from ehrdl.metrics.evaluate import evaluate
from ehrdl.report.outcomes.calibration import before_and_after, how_calibrated
from ehrdl.report.page.html import render
from ehrdl.report.summary import summarize


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 300
    odds = rng.normal(-1, 1, n)
    base = pd.DataFrame(
        {"sample_id": range(n), "subject_id": range(n), "split": "held_out", "output": "death", "seed": 0}
    )
    base["label"] = (rng.random(n) < sigmoid(odds)).astype(float)
    base["prediction_time"], base["value"] = pd.Timestamp("2150"), np.nan
    extreme = base.assign(model="fused", prob=sigmoid(2 * odds), prob_calibrated=sigmoid(odds))
    plain = base.assign(model="lace", prob=sigmoid(odds / 2), prob_calibrated=np.nan)
    same = base.assign(model="prevalence", prob=0.3, prob_calibrated=0.28)
    return pd.concat([extreme, plain, same], ignore_index=True)


@pytest.fixture(scope="module")
def metrics(table):
    return add(evaluate(table, n_bootstrap=20), recalibrated(table, "held_out", n_bootstrap=20))


def test_only_recalibrated_models_that_tell_patients_apart_have_rows(table, metrics):
    info = RunInfo({"prevalence": ModelInfo("prevalence", "constant", "")})
    [row] = before_and_after(metrics["outputs"]["death"], ["lace", "fused", "prevalence"], info)
    assert row["name"] == "fused"
    assert row["before"]["brier"] == metrics["outputs"]["death"]["models"]["fused"]["brier"]
    assert row["before"]["calibration_slope"]["value"] < 0.8 * row["after"]["calibration_slope"]["value"]
    assert before_and_after({"models": {}}, ["fused"], info) == []


def test_the_page_shows_both_and_names_the_method_and_the_split(table, metrics):
    text = render(summarize(table, metrics, manifest={"calibrate": "platt"}))
    part = text.split("Calibration before and after recalibration")[1].split("<h2>")[0]
    assert "Platt's logistic recalibration" in part.replace("&#39;", "'") and "fitted on the tuning split" in part
    values = metrics["outputs"]["death"]
    for found in (values["models"], values["calibrated"]):
        assert f"{found['fused']['calibration_slope']['value']:.3f}" in part
    assert part.count('scope="rowgroup"') == 2 and "lace" not in part


def test_a_file_of_unknown_origin_names_no_method(table, metrics):
    part = render(summarize(table, metrics)).split("Calibration before and after recalibration")[1].split("<h2>")[0]
    assert "fitted on the" not in part.split("Recalibrated")[1].split("Recalibration cannot")[0]
    assert how_calibrated({}) == {"method": "", "fitted_on": ""}
    assert "Calibration before" not in render(summarize(table, evaluate(table, n_bootstrap=5)))


def test_too_few_patients_with_the_outcome_hide_the_table(table, metrics):
    page = render(summarize(table, metrics, min_count=200))
    assert "Calibration before and after" not in page
