"""PREDICTIONS as meds-evaluation reads them, and its numbers against ours."""

import json
import os
import subprocess

import meds
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from known import evaluate

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.metrics.calibration import sigmoid
from ehrdl.report.export import export_predictions


@pytest.fixture(scope="module")
def predictions():
    """Two models, one of two seeds, on two outputs; a tenth of the labels unknown, half of the samples tuning ones."""
    rng = np.random.default_rng(5)
    n = 800
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.sort(rng.integers(1, 300, n))})
    base["prediction_time"] = pd.Timestamp("2150-01-01 10:00") + pd.to_timedelta(np.arange(n), unit="h")
    base["split"] = np.where(base.subject_id < 150, "tuning", "held_out")
    frames = []
    for output in ("readmission", "heart_failure"):
        risk = rng.normal(-1, 1, n)
        label = (rng.random(n) < sigmoid(risk)).astype(np.float32)
        label[rng.random(n) < 0.1] = np.nan
        for model, seed, noise in (("fused", 0, 0.5), ("fused", 1, 0.7), ("gradient_boosting", 0, 1.0)):
            prob = sigmoid(1 + 2 * (risk + noise * rng.normal(size=n)))
            rows = base.assign(model=model, seed=seed, output=output, label=label, prob=prob)
            calibrated = sigmoid(risk) if model == "fused" else np.nan
            frames.append(rows.assign(prob_calibrated=calibrated, group_sex="F"))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def exported(predictions, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    predictions.to_parquet(root / "predictions.parquet")
    export_predictions(root, root / "meds")
    return root / "meds"


FILES = ("fused-seed0", "fused-seed1", "gradient_boosting-seed0")


def test_each_model_seed_and_output_has_its_file(exported):
    found = sorted(file.relative_to(exported).as_posix() for file in exported.rglob("*.parquet"))
    assert found == [f"{output}/{name}.parquet" for output in ("heart_failure", "readmission") for name in FILES]


def test_held_out_rows_with_a_label_are_what_is_exported(exported, predictions):
    rows = predictions[(predictions.model == "fused") & (predictions.seed == 1) & (predictions.output == "readmission")]
    rows = rows[(rows.split == "held_out") & rows.label.notna()]
    table = pq.read_table(exported / "readmission" / "fused-seed1.parquet")
    there = table.to_pandas()
    assert there.subject_id.tolist() == rows.subject_id.tolist()
    assert there.prediction_time.tolist() == rows.prediction_time.tolist()
    assert there.boolean_value.tolist() == (rows.label == 1).tolist()
    assert there.predicted_boolean_probability.tolist() == rows.prob.astype(np.float32).tolist()
    assert there.predicted_boolean_value.tolist() == (rows.prob_calibrated >= 0.5).tolist()
    assert there.predicted_boolean_value.tolist() != (rows.prob >= 0.5).tolist()
    meds.LabelSchema.validate(table.select(["subject_id", "prediction_time", "boolean_value"]))
    assert [table.schema.field(i).type for i in (3, 4)] == [pa.bool_(), pa.float32()]


def test_the_plain_probability_decides_where_none_is_calibrated(exported):
    there = pq.read_table(exported / "readmission" / "gradient_boosting-seed0.parquet").to_pandas()
    assert there.predicted_boolean_value.tolist() == (there.predicted_boolean_probability >= 0.5).tolist()
    assert there.predicted_boolean_value.nunique() == 2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"split": "tuning"}, "column label: no held-out row has a label, so there is nothing to evaluate"),
        ({"label": np.float32("nan")}, "column label: no held-out row has a label, so there is nothing to evaluate"),
        ({"model": "../fused"}, "column model: '../fused' cannot be the name of a file; rename it"),
        ({"output": "a/b"}, "column output: 'a/b' cannot be the name of a file; rename it"),
        (
            {"label": np.float32(0.25)},
            "column label, row 1: 0.25 is neither 0, 1 nor empty; a number that was predicted stands in column value; "
            "so are 1,599 more rows",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_nothing_is_left(predictions, tmp_path, change, line):
    rows = predictions[predictions.model == "gradient_boosting"].reset_index(drop=True)
    rows.assign(**change).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(SchemaError) as caught:
        export_predictions(tmp_path / "mine.parquet", tmp_path / "out")
    assert str(caught.value).removeprefix(f"{tmp_path}/mine.parquet: ") == line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.parquet"]


def test_a_folder_that_is_taken_is_left_alone(exported):
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        export_predictions(exported.parent, exported)


def test_meds_evaluation_finds_the_numbers_that_we_find(exported, predictions, tmp_path):
    python = os.environ.get("EHRDL_PEERS")
    if not python:
        pytest.skip("EHRDL_PEERS names no Python that has meds-evaluation")
    if subprocess.run([python, "-c", "import meds_evaluation"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no meds-evaluation")
    ours = evaluate(predictions, n_bootstrap=2)["outputs"]["readmission"]["models"]
    names = {"auroc": "roc_auc_score", "auprc": "average_precision_score", "brier": "brier_score"}
    for model, seed in (("fused", 1), ("gradient_boosting", 0)):
        file = exported / "readmission" / f"{model}-seed{seed}.parquet"
        arguments = [f"predictions_path={file}", f"output_file={tmp_path / 'result.json'}"]
        subprocess.run([python, "-m", "meds_evaluation", *arguments], cwd=tmp_path, check=True)
        theirs = json.loads((tmp_path / "result.json").read_text())["samples_equally_weighted"]
        for name, their_name in names.items():
            assert theirs[their_name] == pytest.approx(ours[model][name]["per_seed"][seed], abs=1e-6)
        assert 0.6 < theirs["roc_auc_score"] < 0.95
