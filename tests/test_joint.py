"""One network learns a diagnosis and a length of stay together: the joint config from the hospital to the report."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from ehrdl.cli.commands.export import run as export
from ehrdl.cli.commands.predict import run as predict
from ehrdl.cli.commands.report import run as report
from ehrdl.cli.commands.train import run as train
from ehrdl.schema import PREDICTIONS, check

pytestmark = pytest.mark.slow  # a whole run
CONFIG = Path(__file__).parents[1] / "configs" / "joint_synthetic.yaml"
NUMERIC, BINARY = "length_of_stay", ["heart_failure", "over_3_days", "over_7_days"]
BASELINES = ["prevalence", "logistic_regression", "gradient_boosting", "bag_of_words"]
MODELS = {"fused", "notes_only", "series_only", *BASELINES}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("joint")
    small = ["--data.source.init_args.n_patients=500", "--data.source.init_args.seed=1", "--optim.pretrain_epochs=0"]
    where = [f"--run.root={root / 'runs'}", f"--data.prepare.cache={root / 'cache'}", "--trainer.accelerator=cpu"]
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", f"--baselines=[{','.join(BASELINES)}]"]
    train(["--config", str(CONFIG), *small, *where, *limits])
    return root / "runs" / "joint_synthetic"


@pytest.fixture(scope="module")
def table(run):
    return check(pq.read_table(run / "predictions.parquet"), PREDICTIONS).to_pandas()


def test_each_output_has_the_metrics_of_its_kind_of_every_model(run, table):
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["outputs"]) == ["heart_failure", NUMERIC, "over_3_days", "over_7_days"]
    held_out = table[(table.split == "held_out") & table.label.notna()]
    for name, output in metrics["outputs"].items():
        rows = held_out[(held_out.output == name) & (held_out.model == "gradient_boosting")]
        assert set(output["models"]) == MODELS and output["n"] == len(rows)
        got = {metric: value["value"] for metric, value in output["models"]["gradient_boosting"].items()}
        if name == NUMERIC:
            assert list(got) == ["mae", "rmse", "r2"] and output["unit"] == "d"
            assert got["mae"] == pytest.approx(mean_absolute_error(rows.label, rows.value))
            assert got["r2"] == pytest.approx(r2_score(rows.label, rows.value), abs=1e-6)
        else:
            assert got["auroc"] == pytest.approx(roc_auc_score(rows.label, rows.prob))
    macro = metrics["macro"]["models"]["fused"]
    assert {"auroc", "mae"} <= macro.keys() and "mae" not in metrics["micro"]["models"]["fused"]


def test_predictions_are_probabilities_or_days(table):
    numbers = table.output == NUMERIC
    assert table.value.notna().tolist() == numbers.tolist() == table.prob.isna().tolist()
    assert table.prob_calibrated[numbers].isna().all() and table.prob_calibrated[~numbers].notna().all()
    assert table.label[numbers].max() > 10


def test_the_mean_of_the_training_stays_is_what_the_constant_predicts_and_the_networks_scale(run, table):
    spec = json.loads((run / "spec.json").read_text())
    assert spec["outputs"][1] == {"name": NUMERIC, "kind": "regression", "unit": "d"}
    constant = table[(table.model == "prevalence") & (table.output == NUMERIC)].value
    np.testing.assert_allclose(constant, spec["label_mean"][1], rtol=1e-5)
    assert (spec["label_mean"][0], spec["label_std"][0], spec["prevalence"][1]) == (0.0, 1.0, 0.5)


def test_who_is_not_asked_for_a_diagnosis_has_a_length_of_stay_alone(table):
    fused = table[table.model == "fused"].pivot(index="sample_id", columns="output", values="label")
    assert fused.heart_failure.isna().sum() > 100 and fused[NUMERIC].notna().all()


def test_calibration_is_of_probabilities_alone(run):
    rows = json.loads((run / "calibration.json").read_text())
    assert {row["output"] for row in rows} == set(BINARY)


def test_the_report_shows_every_output_and_the_flow_chart_of_every_task(run):
    text = re.sub(r"<[^>]+>", " ", (run / "report.html").read_text())
    text = re.sub(r"\s+", " ", text)
    for words in (
        "Outcome: length_of_stay",
        "Outcome: over_7_days",
        "Mean absolute error [d]",
        "All yes-or-no outp",
    ):
        assert words in text
    steps = json.loads((run / "flow.json").read_text())["steps"]
    assert {step["task"] for step in steps} == {"heart_failure", "length_of_stay", "all tasks"}
    assert "− -" not in text  # no step of one chart is taken for a loss from another's


def test_predict_says_of_the_same_patients_what_the_run_said(run, table):
    predict(["--run", str(run)], "ehrdl predict")
    [folder] = (run / "predict").iterdir()
    again = pq.read_table(folder / "predictions.parquet").to_pandas()
    keys = ["model", "seed", "output", "sample_id"]
    both = table.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(table) and set(again.model) == MODELS
    for column in ("label", "prob", "value", "prob_calibrated"):
        np.testing.assert_allclose(both[column], both[f"{column}_again"], atol=1e-5)
    report([str(folder)], "ehrdl report")
    assert json.loads((folder / "metrics.json").read_text())["outputs"][NUMERIC]["unit"] == "d"


def test_export_leaves_predicted_numbers_out_and_says_so(run, tmp_path, capsys):
    export(["--predictions", str(run), "--out", str(tmp_path / "meds")], "ehrdl export")
    assert sorted(path.name for path in (tmp_path / "meds").iterdir()) == BINARY
    said = capsys.readouterr().err
    assert "length_of_stay: left out, since meds-evaluation has no schema for predicted numbers" in said


def test_the_curves_have_the_tuning_metrics_of_each_kind_and_the_score_that_selects(run):
    [curves] = (run / "curves").glob("fused-seed0*")
    values = pd.read_csv(next(curves.glob("**/metrics.csv"))).dropna(subset="tuning/score").iloc[-1]
    names = {name for name in values.index if name.startswith("tuning/")}
    assert {"tuning/mae_length_of_stay", "tuning/r2_length_of_stay", "tuning/auprc_heart_failure"} <= names
    assert {"tuning/auprc", "tuning/r2", "tuning/score"} <= names
    parts = [values[f"tuning/auprc_{name}"] for name in BINARY] + [values["tuning/r2_length_of_stay"]]
    assert values["tuning/score"] == pytest.approx(np.mean(parts), abs=1e-5)


def test_labels_are_exported_as_numbers_and_as_yes_or_no(run, tmp_path):
    cache = run.parents[1] / "cache"
    small = ["--data.source.init_args.n_patients=500", "--data.source.init_args.seed=1"]
    out = tmp_path / "meds"
    export(["--config", str(CONFIG), *small, f"--data.prepare.cache={cache}", "--out", str(out)], "ehrdl export")
    days = pq.read_table(out / "labels" / NUMERIC / "0.parquet")
    over = pq.read_table(out / "labels" / "over_3_days" / "0.parquet")
    assert days["float_value"].null_count == 0 and days.num_rows == over.num_rows
    assert (days["float_value"].to_numpy() > 3).tolist() == over["boolean_value"].to_pylist()
