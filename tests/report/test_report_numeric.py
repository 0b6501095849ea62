"""The report of regression outputs, alone and beside binary ones."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from known import evaluate, summarize

from ehrdl.metrics.calibration import sigmoid
from ehrdl.report.outcomes.ranking import verdict
from ehrdl.report.page.html import estimate, number, render
from ehrdl.report.remake import remake

NOISE = {"fused": 0.5, "series_only": 0.9, "gradient_boosting": 1.1, "logistic_regression": 2.0, "prevalence": None}
FLOW = {
    "steps": [
        {"step": "admissions", "rule": "every stay", "admissions": 90, "subjects": 50, "task": "stay"},
        {"step": "alive", "rule": "no death", "admissions": 80, "subjects": 45, "task": "stay"},
        {"step": "admissions", "rule": "every stay", "admissions": 90, "subjects": 50, "task": "failure"},
    ],
    "notes": {"what": "Each model says how long."},
}


def predictions(numbers=("days",), binary=(), n=400):
    rng = np.random.default_rng(1)
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.arange(n) // 2, "split": "held_out"})
    base = base.assign(
        prediction_time=pd.Timestamp("2150-01-01"), group_discharge=np.where(rng.random(n) < 0.1, "died", "alive")
    )
    frames = []
    for output in (*numbers, *binary):
        truth = rng.gamma(2.0, 2.0, n)
        label = truth.copy() if output in numbers else (rng.random(n) < sigmoid(truth - 4)).astype(float)
        label[:5] = np.nan
        for model, noise in NOISE.items():
            for seed in (0, 1) if model == "fused" else (0,):
                value = np.full(n, 4.0) if noise is None else truth + noise * rng.normal(size=n)
                held = {"value": value, "prob": np.nan} if output in numbers else {"prob": sigmoid(value - 4)}
                frames.append(
                    base.assign(**{"value": np.nan, **held}, model=model, seed=seed, output=output, label=label)
                )
    return pd.concat(frames, ignore_index=True).assign(prob_calibrated=np.nan)


def summary(units=None, **outputs):
    table = predictions(**outputs)
    return summarize(table, evaluate(table, n_bootstrap=60, units=units), FLOW, min_count=1)


@pytest.fixture(scope="module")
def alone():
    return summary({"days": "d"})


@pytest.fixture(scope="module")
def mixed():
    return summary({"days": "d", "dose": "mg"}, numbers=("days", "dose"), binary=("death", "sepsis"))


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_summary_is_plain_json_and_ranks_by_the_error(alone):
    assert json.loads(json.dumps(alone, allow_nan=False)) == alone
    [output] = alone["outputs"]
    errors = [row["metrics"]["mae"]["value"] for row in output["models"]]
    assert errors == sorted(errors) and output["models"][0]["name"] == "fused"
    assert output["headline"]["baseline"] == "gradient_boosting" and output["headline"]["verdict"] == "better"
    told = [row["metrics"]["mae"]["value"] for row in output["differences"]]
    assert told == sorted(told) and {row["verdict"] for row in output["differences"]} == {"better"}


def test_page_names_every_model_and_number_with_its_unit(alone):
    text = text_of(render(alone))
    [output] = alone["outputs"]
    for row in output["models"]:
        assert row["name"] in text and all(estimate(value) in text for value in row["metrics"].values())
    for row in output["differences"]:
        assert all(estimate(value, signed=True) in text for value in row["metrics"].values())
    for row in output["groups"][0]["rows"]:
        assert f"{row['name']} {number(row['n'])} {row['observed']:.2f} {row['predicted']:.2f} {row['mae']:.2f}" in text
    low, high = output["models"][0]["mae_over_seeds"]
    assert f"mean of 2 seeds, MAE {low:.3f} to {high:.3f}" in text
    assert "Mean absolute error [d]" in text and "5 predictions with an unknown value are left out" in text
    assert "fused comes closer than gradient_boosting" in text


def test_groups_have_the_error_of_the_reference(alone):
    table = predictions()
    rows = table[(table.model == "fused") & table.label.notna() & (table.group_discharge == "died")]
    found = {row["name"]: row for row in alone["outputs"][0]["groups"][0]["rows"]}["died"]
    assert found["mae"] == pytest.approx((rows.value - rows.label).abs().mean())
    assert found["observed"] == pytest.approx(rows.label.mean()) and found["n"] == len(rows) / 2


def test_plots_show_the_predictions_of_the_reference_as_they_are(alone):
    curves = alone["outputs"][0]["curves"]
    table = predictions()
    rows = table[(table.model == "fused") & table.label.notna()]
    error = np.sort((rows.groupby("sample_id").value.mean() - rows.groupby("sample_id").label.mean()).abs())
    first = curves["within"][0]
    assert first["name"] == "fused" and first["y"][50] == pytest.approx((error <= first["x"][50]).mean())
    assert sum(curves["errors"]["share"]) == pytest.approx(1) and sum(curves["bins"][0]["count"]) == len(error)
    cells = curves["cells"]
    share = [part for row in cells["share"] for part in row if part is not None]
    assert sum(share) == pytest.approx(1) and cells["drawn"] == pytest.approx(1) and cells["range"][0] == 0


def test_each_kind_has_its_own_page_and_its_own_averages(mixed):
    page = render(mixed)
    names = ["yes-or-no outputs (macro)", "yes-or-no outputs pooled (micro)", "outputs that are numbers (macro)"]
    assert all(part["name"].endswith(name) for part, name in zip(mixed["averages"], names, strict=True))
    assert [len(part["metrics"]) for part in mixed["averages"]] == [6, 6, 3]
    numeric = mixed["averages"][2]["models"][0]
    assert numeric["name"] == "fused" and numeric["metrics"]["mae"]["value"] is None  # days and mg have no mean
    drawn = page.count("<svg") - page.count('<svg class="consort"') - page.count('class="people"')
    assert drawn == 4 * 6 and len(re.findall(r'\bid="', page)) == len(set(re.findall(r'\bid="[^"]+"', page)))
    assert text_of(page).count("Outcome:") == 4


def test_each_tasks_flow_chart_stands_alone(mixed):
    dropped = [step["dropped_admissions"] for step in mixed["flow"]]
    assert dropped == [None, 10, None]
    page = render(mixed)
    assert page.count('<figure class="consort-wide">') == page.count('<figure class="consort-narrow">') == 2
    assert "<h4>Failure</h4>" in page


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.3, "worse"), (-0.3, -0.1, "better"), (-0.1, 0.1, "not told apart")]
)
def test_a_lower_error_is_better(low, high, said):
    assert verdict({"value": 0.0, "low": low, "high": high}, "regression") == said


def test_a_report_is_made_of_the_file_alone_with_the_units_of_the_manifest(tmp_path):
    predictions().to_parquet(tmp_path / "predictions.parquet")
    remake(tmp_path)
    assert "Mean absolute error" in (tmp_path / "report.html").read_text()
    outputs = [{"name": "days", "kind": "regression", "unit": "d"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"task": "length_of_stay", "outputs": outputs}))
    remake(tmp_path)
    assert "Mean absolute error [d]" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["outputs"]["days"]["unit"] == "d"
