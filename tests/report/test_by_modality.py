"""The report's table of results by what was present."""

import re

import numpy as np
import pandas as pd
import pytest
from known import evaluate, info_of, summarize

from ehrdl.report.outcomes.ranking import best_baseline
from ehrdl.report.page.html import estimate, render
from ehrdl.report.remake import remake

MODELS = {"fused": 0.3, "notes_only": 0.9, "series_only": 0.8, "bag_of_words": 1.0, "random_forest": 2.0, "bayes": 0.0}
SIZES = {"notes and series": 300, "notes only": 90, "series only": 60, "neither": 12}


def predictions(**columns):
    rng = np.random.default_rng(1)
    n = sum(SIZES.values())
    risk = rng.normal(-1, 1.2, n)
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.arange(n) // 2, "split": "held_out"})
    base["label"] = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(np.float32)
    base["group_sex"] = rng.choice(["F", "M"], n)
    base["group_present"] = np.repeat(list(SIZES), list(SIZES.values()))
    base = base.assign(output="death", seed=0, prediction_time=pd.Timestamp("2150"), prob_calibrated=np.nan)
    frames = [
        base.assign(model=model, prob=1 / (1 + np.exp(-risk - noise * rng.normal(size=n))))
        for model, noise in MODELS.items()
    ]
    return pd.concat(frames, ignore_index=True).assign(**columns)


@pytest.fixture(scope="module")
def made():
    table = predictions()
    metrics = evaluate(table, n_bootstrap=50)
    summary = summarize(table, metrics, min_count=1)
    return metrics["outputs"]["death"]["present"], summary["outputs"][0], render(summary)


def test_the_table_has_the_deep_models_and_the_best_baseline_in_every_stratum(made):
    metrics, output, _ = made
    assert [(part["name"], part["n"]) for part in output["present"]] == list(SIZES.items())
    *scored, neither = output["present"]
    for part in scored:
        assert [row["name"] for row in part["rows"]] == ["fused", "series_only", "notes_only", "bag_of_words"]
        for row in part["rows"]:
            assert {key: row[key] for key in ("auroc", "auprc")} == metrics[part["name"]]["models"][row["name"]]
    assert neither["events"] < 10 and neither["rows"] == []


def test_the_page_shows_every_number_of_the_table(made):
    _, output, page = made
    section = page[page.index("By what was present") : page.index('<section id="calibration">')]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    for part in output["present"]:
        assert f"{part['name']} {part['n']} {part['events']} {'fused' if part['rows'] else 'fewer than 10'} " in text
        for row in part["rows"]:
            assert f"{row['name']} {estimate(row['auroc'])} {estimate(row['auprc'])}" in text
    assert "bayes" not in text and "random_forest" not in text


def test_the_strata_are_not_shown_again_among_the_groups(made):
    assert [group["name"] for group in made[1]["groups"]] == ["sex"]


@pytest.mark.parametrize("columns", [{}, {"group_present": "series only"}], ids=["older version", "one stratum"])
def test_predictions_that_do_not_differ_in_what_is_present_get_no_table(tmp_path, columns):
    table = predictions(**columns)
    if not columns:
        table = table.drop(columns="group_present")
    table.to_parquet(tmp_path / "predictions.parquet")
    assert "By what was present" not in remake(tmp_path).read_text()


def test_a_combined_model_is_in_every_stratum_and_never_the_best_baseline():
    rows = predictions()
    lightgbm, ensemble = (rows[rows.model == "fused"].assign(model=name) for name in ("lightgbm", "ensemble"))
    ensemble["prob"] = rows.prob[rows.model == "bayes"].to_numpy()  # the best there can be
    table = pd.concat([rows, lightgbm, ensemble], ignore_index=True)
    output = summarize(table, evaluate(table, n_bootstrap=50))["outputs"][0]
    assert output["headline"]["baseline"] == "lightgbm"
    names = ["fused", "series_only", "notes_only", "ensemble", "lightgbm"]
    assert [row["name"] for row in output["present"][0]["rows"]] == names
    assert "ensemble" in [line["name"] for line in output["curves"]["lines"]]
    assert [row["other"] for row in output["differences"]].count("ensemble") == 1
    names = ["ensemble", "stack", "prevalence"]
    assert best_baseline(names, "fused", info_of(pd.DataFrame({"model": names}))) is None


def test_a_regression_output_has_the_table_with_its_own_metrics():
    rng = np.random.default_rng(2)
    table = predictions().assign(output="days", prob=np.nan)
    stay = pd.Series(rng.gamma(2.0, 2.0, sum(SIZES.values())))
    table = table.assign(label=table.sample_id.map(stay)).query("sample_id < 455")  # leaves 5 of "neither"
    noise = table.model.map(MODELS)
    table["value"] = table.label + noise * rng.normal(size=len(table))
    table = table[table.model != "bayes"]
    metrics = evaluate(table, n_bootstrap=50)
    summary = summarize(table, metrics, min_count=1)
    [output] = summary["outputs"]
    sizes = SIZES | {"neither": 5}
    assert [(part["name"], part["n"], part["events"]) for part in output["present"]] == [
        (name, n, None) for name, n in sizes.items()
    ]
    page = render(summary)
    section = page[page.index("By what was present") : page.index('<section id="subgroups">')]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert "n Model MAE RMSE R² " in text and "AUPRC" not in text and "neither 5 fewer than 10 predictions" in text
    *scored, _ = output["present"]
    for part in scored:
        assert [row["name"] for row in part["rows"]] == ["fused", "series_only", "notes_only", "bag_of_words"]
        for row in part["rows"]:
            own = metrics["outputs"]["days"]["present"][part["name"]]["models"][row["name"]]
            assert {key: row[key] for key in ("mae", "rmse", "r2")} == own
            assert f"{row['name']} {estimate(row['mae'])} {estimate(row['rmse'])} {estimate(row['r2'])}" in text


def test_a_run_that_describes_no_models_is_said_to_have_no_comparison(tmp_path, capsys):
    predictions().to_parquet(tmp_path / "predictions.parquet")
    (tmp_path / "manifest.json").write_text('{"seeds": [0]}')
    assert "Differences to" not in remake(tmp_path).read_text()
    assert "manifest.json: describes no models" in capsys.readouterr().err
