"""Models that were fitted with reweighted classes predict risks: in a fit, after a kill and from a file."""

import functools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from sklearn.utils.class_weight import compute_sample_weight

from ehrdl.cli.configured import configured, named, train_parser
from ehrdl.comparators.baseline import check_params, fit_baselines
from ehrdl.comparators.risk import file_of, reweights, stored_risks, to_risks
from ehrdl.comparators.saved import baseline_probs, load_deep
from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.errors import ConfigError
from ehrdl.metrics.calibration import calibration_intercept, logit, sigmoid
from ehrdl.models.baselines.boosted import BOOSTED
from ehrdl.models.baselines.tabular import balanced_rows, class_weights, loss_of
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Boosting, Optim, RiskOptions
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import BINARY, REGRESSION, TRAIN, TUNING
from ehrdl.training import checkpoint
from ehrdl.training.fit import fit
from ehrdl.training.predict import predict
from ehrdl.training.setup import Fit, Training
from ehrdl.tune.trial import check_values

SMALL = functools.partial(MultimodalModel, series=functools.partial(SeriesGRU, hidden=4))


def test_class_weights_are_scikit_learns_and_balanced_rows_hold_both_classes():
    label = (np.random.default_rng(0).random(2000) < 0.07).astype(np.float32)
    np.testing.assert_allclose(class_weights(label), compute_sample_weight("balanced", label))
    rows = balanced_rows(label, seed=1)
    assert len(rows) == 2000
    assert label[rows].mean() == pytest.approx(0.5, abs=0.04)
    np.testing.assert_array_equal(rows, balanced_rows(label, seed=1))
    assert class_weights(np.zeros(3, np.float32)).tolist() == [1, 1, 1]


def test_candidates_with_reweighted_classes_are_judged_after_recalibration():
    rng = np.random.default_rng(0)
    prob = sigmoid(rng.normal(-2, 1, 3000))
    label = (rng.random(3000) < prob).astype(float)
    raised = sigmoid(logit(prob) + 3)
    judged = loss_of(BINARY, reweighted=True)
    assert judged(label, raised) == pytest.approx(judged(label, prob), abs=1e-9)
    assert judged(label, raised) == pytest.approx(loss_of(BINARY)(label, prob), abs=0.003)
    assert loss_of(BINARY)(label, raised) > judged(label, raised) + 0.5


def test_only_fitted_baselines_of_outcomes_are_reweighted():
    assert [reweights("random_forest", kind) for kind in ("none", "weighted", "focal", "balanced")] == [
        False, True, False, True,
    ]  # fmt: skip
    assert not reweights("prevalence", "weighted")
    assert not reweights("random_forest", "weighted", REGRESSION)


def test_a_class_weight_of_ones_own_is_refused_since_its_scores_are_no_risks():
    with pytest.raises(ConfigError, match=r"^baseline_params\.random_forest\.class_weight: .*optim\.imbalance"):
        check_params({"random_forest": {"class_weight": "balanced"}})


def test_scores_become_risks_that_a_finished_run_makes_again(prepared, tmp_path):
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(TRAIN)])
    score = np.random.default_rng(1).random((len(rows), 1))
    models = tmp_path / "models"
    risks = to_risks("fused-seed0", prepared, rows, score, models)
    label = prepared.samples.label_readmission.to_numpy()[rows]
    tuning = (prepared.samples.split.to_numpy()[rows] == TUNING) & ~np.isnan(label)
    assert risks[tuning, 0].mean() == pytest.approx(label[tuning].mean(), abs=1e-6)
    files = [path.name for path in models.iterdir()]
    assert files == [file_of("fused-seed0")]
    np.testing.assert_array_equal(stored_risks("fused-seed0", prepared.spec.outputs, score, models, files), risks)
    assert stored_risks("other", prepared.spec.outputs, score, models, files) is score
    (models / files[0]).write_text(json.dumps({"readmission": {"a": "x", "b": 1}}))
    with pytest.raises(ConfigError, match=r"fused-seed0\.risk\.json"):
        stored_risks("fused-seed0", prepared.spec.outputs, score, models, files)


NAMES = ["prevalence", "logistic_regression", "gradient_boosting", *BOOSTED]


@pytest.mark.parametrize("imbalance", ["weighted", "balanced"])
def test_reweighted_baselines_predict_risks_and_their_files_predict_the_same(prepared, tmp_path, imbalance):
    params = {"logistic_regression": {"C": 0.003}, "gradient_boosting": {"max_iter": 20}, "lightgbm": {}, "xgboost": {}}
    risks = RiskOptions(imbalance, "none")
    (tmp_path / "plain").mkdir()
    parts = fit_baselines(NAMES, prepared, tmp_path, 0, Boosting(trials=1), params, risks)
    plain = fit_baselines(NAMES[:2], prepared, tmp_path / "plain", 0, Boosting(trials=1), params)
    models = tmp_path / "models"
    files = [path.name for path in models.iterdir()]
    assert {file_of(name) for name in NAMES[1:]} <= set(files) and file_of("prevalence") not in files
    probs = dict(baseline_probs(models, prepared, files))
    for part in parts:
        name = part.model.iloc[0]
        assert part.prob_calibrated.isna().all()
        again = stored_risks(name, prepared.spec.outputs, probs[name], models, files)[part.sample_id, 0]
        np.testing.assert_allclose(again, part.prob, rtol=0, atol=1e-12)
        tuning = part[(part.split == TUNING) & part.label.notna()]
        if name != "prevalence":
            assert abs(float(calibration_intercept(tuning.label, tuning.prob))) < 1e-5
            assert probs[name].mean() > 1.5 * tuning.prob.mean()  # the scores themselves are far too high
    pd.testing.assert_frame_equal(parts[0].drop(columns="prob_calibrated"), plain[0].drop(columns="prob_calibrated"))
    assert not np.allclose(parts[1].prob, plain[1].prob, atol=1e-4)


def test_focal_leaves_baselines_as_they_are_and_says_so(prepared, tmp_path, capsys):
    params = {"logistic_regression": {"C": 0.003}}
    args = (["logistic_regression"], prepared)
    [focal] = fit_baselines(*args, tmp_path, 0, params=params, risks=RiskOptions("focal"))
    assert "optim.imbalance: focal is a loss of networks; baselines are fitted without it" in capsys.readouterr().err
    [plain] = fit_baselines(*args, tmp_path, 0, params=params)
    pd.testing.assert_frame_equal(focal, plain)


class Stop(Callback):
    """Ends the process before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


class Killed(BaseException):
    pass


@pytest.mark.parametrize("imbalance", ["weighted", "focal", "balanced"])
def test_a_reweighted_fit_that_was_killed_ends_equal_and_loads(prepared, tmp_path, monkeypatch, imbalance):
    monkeypatch.setattr(checkpoint, "_CHECKPOINT_STEPS", 3)
    spec, optim = prepared.spec.only("series"), Optim(imbalance=imbalance)
    trainer = check_trainer({"max_epochs": 2, "accelerator": "cpu"})

    def run(folder, *watch, optim=optim):
        size = math.ceil(len(prepared.rows(TRAIN)) / 8)
        data = ClinicalDataModule(prepared, BatchOptions(size=size), balanced=optim.imbalance == "balanced")
        return fit(Training(SMALL, optim, trainer), data, spec, Fit(tmp_path / folder, "series_only", 0), watch=watch)

    whole = run("whole").state_dict()
    with pytest.raises(Killed):
        run("killed", Stop(11))
    resumed = run("killed").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    plain = run("plain", optim=Optim()).state_dict()
    assert not torch.equal(plain["network.head.logits.weight"], whole["network.head.logits.weight"])
    loaded = load_deep(tmp_path / "whole" / "checkpoints" / "series_only-seed0.ckpt", SMALL)
    assert (loaded.optim, loaded.network.spec) == (optim, spec.trained(0.3, imbalance))


def test_a_weighted_network_scores_far_above_the_prevalence_until_its_scores_are_risks(prepared, tmp_path):
    data = ClinicalDataModule(prepared, BatchOptions(size=64))
    spec, trainer = prepared.spec.only("series"), check_trainer({"max_epochs": 1, "accelerator": "cpu"})
    training = Training(SMALL, Optim(imbalance="weighted"), trainer)
    model = fit(training, data, spec, Fit(tmp_path, "series_only", 0))
    rows, score = predict(model, data.val_dataloader(), trainer)
    prevalence = float(np.nanmean(prepared.samples.label_readmission.to_numpy()[rows]))
    risks = to_risks("series_only-seed0", prepared, rows, score, tmp_path / "models")
    assert score.mean() > 2 * prevalence
    assert risks.mean() == pytest.approx(prevalence, abs=1e-6)


def test_a_study_by_log_loss_is_refused_since_its_trials_have_scores_and_no_risks():
    argv = ["--config", "quickstart", "--optim.imbalance=weighted", "--tune.metric=log_loss"]
    with named(argv) as rest:
        settings, _ = configured(train_parser(), rest)
    with pytest.raises(ConfigError, match=r"^tune\.metric: log_loss .* optim\.imbalance: weighted .* use auprc"):
        check_values(settings, None, "random_forest")
