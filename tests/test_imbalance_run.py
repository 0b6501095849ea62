"""A run with reweighted classes and isotonic recalibration: trained, reported, and applied to its own patients."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ehrdl.cli.main import main
from ehrdl.metrics.calibration import calibration_intercept
from ehrdl.schema import TUNING
from ehrdl.sources.synthetic import write_hospital

CONFIG = """
run: {{name: small, root: {root}}}
seeds: [3]
data:
  source:
    class_path: ehrdl.sources.mimic4.source.Mimic4
    init_args: {{root: {hospital}}}
  prepare: {{cache: {root}/cache}}
task: {{class_path: ehrdl.tasks.readmission.Readmission}}
model:
  class_path: ehrdl.models.networks.multimodal.MultimodalModel
  init_args:
    series: {{class_path: ehrdl.models.series.gru.SeriesGRU, init_args: {{hidden: 8, bin_hours: 24}}}}
trainer: {{max_epochs: 1, accelerator: cpu}}
baselines: [prevalence, gradient_boosting, hospital]
baseline_params: {{gradient_boosting: {{max_iter: 20}}}}
combine: {{models: [ensemble, stack], members: [series_only, gradient_boosting]}}
optim: {{imbalance: balanced, stages: 1}}
calibrate: isotonic
"""
pytestmark = pytest.mark.slow  # a whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("imbalance")
    write_hospital(root / "hospital", n_patients=250, seed=4, progress=False)
    shutil.rmtree(root / "hospital" / "note")
    (root / "config.yaml").write_text(CONFIG.format(root=root, hospital=root / "hospital"))
    main(["train", "--config", str(root / "config.yaml")])
    return root / "small"


def test_prob_is_a_risk_and_the_scores_are_kept_beside_the_models(run):
    table = pd.read_parquet(run / "predictions.parquet")
    files = {path.name for path in (run / "models").glob("*.risk.json")}
    assert files == {"gradient_boosting.risk.json", "series_only-seed3.risk.json"}
    for name in ("gradient_boosting", "series_only"):
        tuning = table[(table.model == name) & (table.split == TUNING) & table.label.notna()]
        assert abs(float(calibration_intercept(tuning.label, tuning.prob))) < 1e-5
        prevalence = tuning.label.mean()
        assert tuning.prob_calibrated.mean() == pytest.approx(prevalence, abs=1e-6)


def test_the_run_reloaded_predicts_what_it_predicted(run, tmp_path):
    main(["predict", "--run", str(run), "--out", str(tmp_path / "out")])
    keys = ["model", "seed", "output", "sample_id"]
    there = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    table = pd.read_parquet(run / "predictions.parquet")
    both = table.merge(there, on=keys, suffixes=("", "_there"), validate="one_to_one")
    assert len(both) == len(table)
    assert {"series_only", "gradient_boosting", "prevalence", "hospital", "ensemble", "stack"} == set(both.model)
    np.testing.assert_allclose(both.prob_there, both.prob, atol=1e-6, rtol=0)
    # An isotonic curve is steep between its steps, where it multiplies the last bits of a network's risk.
    np.testing.assert_allclose(both.prob_calibrated_there, both.prob_calibrated, atol=1e-4, rtol=0)


def test_before_and_after_are_in_the_metrics_and_the_report(run, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())["outputs"]["readmission"]
    assert set(metrics["calibrated"]) == set(metrics["models"])
    assert set(metrics["calibrated"]["stack"]) == {"brier", "calibration_slope", "calibration_intercept"}
    assert json.loads((run / "manifest.json").read_text())["calibrate"] == "isotonic"
    main(["report", str(run), "--out", str(tmp_path), "--min-count", "1"])
    text = (tmp_path / "report.html").read_text()
    assert "Calibration before and after recalibration" in text
    assert "isotonic regression (a curve that never falls), fitted on the tuning split" in text


def test_a_damaged_recalibration_is_one_line(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    assert any(name.endswith("risk.json") for name in manifest["files"])
    (broken / "models" / "series_only-seed3.risk.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--run", str(broken), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert "series_only-seed3.risk.json" in lines[-1]
