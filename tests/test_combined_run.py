"""A run of two seeds with boosted and combined models, of a number and a yes or no, and what it says of them later."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from ehrdl.cli.commands.predict import run as predict
from ehrdl.cli.commands.train import run as train

pytestmark = pytest.mark.slow  # a whole run
CONFIG = Path(__file__).parents[1] / "configs" / "joint_synthetic.yaml"
DEEP, COMBINED = ["fused", "notes_only", "series_only"], ["ensemble", "stack"]
MEMBERS = ["fused", "lightgbm", "xgboost"]
OPTIONS = [
    "--task=ehrdl.tasks.length_of_stay.LengthOfStay",
    "--task.unit=hospital",
    "--task.over_days=[3]",
    "--seeds=[0, 1]",
    "--baselines=[prevalence, lightgbm, xgboost]",
    "--boosting.trials=2",
    "--combine.models=[ensemble, stack]",
    "--data.source.init_args.n_patients=400",
    "--data.source.init_args.seed=1",
    "--data.notes.chunk_tokens=64",
    "--optim.pretrain_epochs=0",
    "--model.init_args.note.init_args.width=16",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=4",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose cache is gone."""
    root = tmp_path_factory.mktemp("combined")
    where = [f"--run.root={root / 'runs'}", "--run.name=small", f"--data.prepare.cache={root / 'cache'}"]
    train(["--config", str(CONFIG), *OPTIONS, *where])
    shutil.rmtree(root / "cache")
    return root / "runs" / "small"


@pytest.fixture(scope="module")
def table(run):
    return pd.read_parquet(run / "predictions.parquet")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_combined_models_stand_in_metrics_with_an_interval_and_a_paired_difference(metrics, table):
    outcome = metrics["outputs"]["over_3_days"]
    assert set(outcome["models"]) == {*DEEP, "prevalence", "lightgbm", "xgboost", *COMBINED}
    for name in COMBINED:
        auroc = outcome["models"][name]["auroc"]
        rows = table[(table.model == name) & (table.output == "over_3_days") & (table.split == "held_out")]
        rows = rows[rows.label.notna()]
        assert auroc["value"] == pytest.approx(roc_auc_score(rows.label, rows.prob))
        assert auroc["per_seed"] == [auroc["value"]]  # it is one model, whatever it is made of
        assert auroc["low"] < auroc["value"] < auroc["high"]
        difference = outcome["differences"][f"fused - {name}"]["auroc"]
        assert difference["value"] == pytest.approx(outcome["models"]["fused"]["auroc"]["value"] - auroc["value"])
        assert {"mae", "auroc"} <= metrics["macro"]["models"][name].keys()


def test_the_ensemble_is_the_equal_average_of_deep_and_boosted_models(table):
    own = table[table.output == "over_3_days"]
    mean = own.assign(logit=logit(own.prob.clip(1e-6, 1 - 1e-6))).groupby(["sample_id", "model"]).logit.mean().unstack()
    ensemble = own[own.model == "ensemble"].set_index("sample_id").prob
    np.testing.assert_allclose(ensemble, expit(mean[MEMBERS].mean(axis=1)), atol=1e-12)
    days = table[table.output == "length_of_stay"].groupby(["sample_id", "model"]).value.mean().unstack()
    np.testing.assert_allclose(days["ensemble"], days[MEMBERS].mean(axis=1), atol=1e-12)


def test_stored_weights_are_plain_numbers_of_named_members(run):
    for name in COMBINED:
        for output in ("over_3_days", "length_of_stay"):
            stored = json.loads((run / "models" / f"{name}-{output}.json").read_text())
            assert stored["members"] == MEMBERS
            assert min(stored["blend"]["weights"]) >= 0
            assert len(stored["folds"]) == (5 if name == "stack" else 0)


def test_predict_says_of_every_model_what_the_run_said(run, table, tmp_path):
    predict(
        ["--run", str(run), "--out", str(tmp_path / "out"), f"--data.prepare.cache={tmp_path / 'cache'}"], "predict"
    )
    there = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    keys = ["model", "seed", "output", "sample_id"]
    both = table.merge(there, on=keys, suffixes=("", "_there"), validate="one_to_one")
    assert len(both) == len(table)
    boosted = both.model.isin(["lightgbm", "xgboost"])
    for column in ("prob", "value", "prob_calibrated"):
        np.testing.assert_allclose(both[f"{column}_there"], both[column], atol=1e-5, rtol=0)
        np.testing.assert_allclose(both[f"{column}_there"][boosted], both[column][boosted], atol=1e-12, rtol=0)
    assert set(there.model[there.split == "train"]) == set(table.model)


def test_the_report_says_what_combined_models_are(run):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (run / "report.html").read_text()))
    assert "combined: equal average of several models" in text
    assert "combined: average with weights from the tuning split" in text


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        train(["--config", str(CONFIG), *OPTIONS, *argv])
    assert caught.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ehrdl: ")]
    return line


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--combine.models=[vote]", "combine.models: expected one of 'ensemble', 'stack', got 'vote'"),
        ("--combine.members=[fused, lasso]", "combine.members: 'lasso' is no model of this run; there are fused,"),
        ("--boosting.trials=0", "boosting.trials: 0 is below 1"),
        ("--combine.member=[fused]", "combine.member: there is no such key; did you mean members?"),
    ],
)
def test_what_cannot_be_combined_is_one_line_before_any_data_is_read(option, says, tmp_path, capsys):
    line = refusal(capsys, option, f"--run.root={tmp_path}", "--run.name=x", f"--data.prepare.cache={tmp_path / 'c'}")
    assert says in line
    assert not (tmp_path / "x").exists() and not (tmp_path / "c" / "events").exists()
