"""Baselines are chosen on tuning, stored without pickle, and left out where they have nothing to read."""

import contextlib
import dataclasses

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from ehrdl.comparators import baseline
from ehrdl.comparators.baseline import check_baselines, fit_baselines, load, save, thinned
from ehrdl.data.features.table import tabulate
from ehrdl.errors import ConfigError
from ehrdl.experiment import BASELINES as DEFAULT
from ehrdl.models.baselines.scores import SCORES
from ehrdl.models.baselines.tabular import BASELINES, predict
from ehrdl.schema import HELD_OUT, REGRESSION, TRAIN, TUNING, OutputSpec

pytestmark = pytest.mark.slow  # every baseline is fitted


@pytest.fixture(scope="module")
def numeric(prepared, tmp_path_factory):
    """The same patients with a number to predict, their age and noise, and all classical models fitted to it."""
    samples = prepared.samples.rename(columns={"label_readmission": "label_days", "status_readmission": "status_days"})
    noise = np.random.default_rng(0).normal(size=len(samples))
    samples["label_days"] = (prepared.dataset.static[:, 0] / 10 + noise).astype(np.float32)
    samples.loc[prepared.rows(TRAIN)[:9], "label_days"] = np.nan
    outputs = (OutputSpec("days", REGRESSION, "d"),)
    spec = dataclasses.replace(prepared.spec, outputs=outputs, label_mean=(5.0,), label_std=(2.0,))
    changed = dataclasses.replace(prepared, samples=samples, spec=spec)
    folder = tmp_path_factory.mktemp("numeric")
    parts = fit_baselines(list(BASELINES), changed, folder, seed=0)
    return changed, folder, dict(zip(BASELINES, parts, strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_a_stored_baseline_predicts_the_number_that_the_fitted_one_did(numeric, name):
    prepared, folder, parts = numeric
    part = parts[name]
    assert part.prob.isna().all() and part.prob_calibrated.isna().all()
    loaded = load(folder / "models" / f"{name}-days.skops")
    value = predict(loaded, tabulate(prepared.dataset, part.sample_id.to_numpy()), REGRESSION)
    np.testing.assert_allclose(value, part.value, rtol=0, atol=1e-9)


def test_prevalence_is_the_mean_of_the_known_training_numbers_and_the_others_do_better(numeric):
    prepared, _, parts = numeric
    label = prepared.samples.label_days.to_numpy()[prepared.rows(TRAIN)]
    np.testing.assert_allclose(parts["prevalence"].value, np.nanmean(label), rtol=1e-6)
    error = {name: ((part.value - part.label)[part.split == HELD_OUT] ** 2).mean() for name, part in parts.items()}
    for name in ("logistic_regression", "random_forest", "gradient_boosting"):
        assert error[name] < 0.8 * error["prevalence"]


@pytest.fixture(scope="module")
def fitted(prepared, tmp_path_factory):
    """The run folder and PREDICTIONS by name of all classical models, fitted once."""
    folder = tmp_path_factory.mktemp("baselines")
    parts = fit_baselines(list(BASELINES), prepared, folder, seed=0)
    return folder, dict(zip(BASELINES, parts, strict=True))


def test_predictions_made_in_blocks_are_those_of_one_table(prepared, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "_ROWS_A_BLOCK", 13)
    (part,) = fit_baselines(["logistic_regression"], prepared, tmp_path, seed=0)
    whole = fitted[1]["logistic_regression"]
    assert part.sample_id.tolist() == whole.sample_id.tolist()
    np.testing.assert_allclose(part.prob, whole.prob, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_a_stored_baseline_predicts_as_the_fitted_one(prepared, fitted, name):
    folder, parts = fitted
    part = parts[name]
    loaded = load(folder / "models" / f"{name}-readmission.skops")
    prob = loaded.predict_proba(tabulate(prepared.dataset, part.sample_id.to_numpy()))[:, 1]
    np.testing.assert_allclose(prob, part.prob, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_every_tuning_and_held_out_sample_is_predicted_once(prepared, fitted, name):
    part = fitted[1][name]
    assert set(part.model) == {name}
    assert sorted(part.sample_id) == sorted([*prepared.rows(TUNING), *prepared.rows(HELD_OUT)])


def test_prevalence_is_the_share_of_positive_training_samples(prepared, fitted):
    label = prepared.samples.label_readmission.to_numpy()[prepared.rows(TRAIN)]
    np.testing.assert_allclose(fitted[1]["prevalence"].prob, np.nanmean(label), atol=1e-7)


def test_text_baselines_are_left_out_with_a_line_where_there_are_no_notes(prepared, tmp_path, capsys):
    without = dataclasses.replace(prepared, spec=prepared.spec.only("series"))
    parts = fit_baselines(["prevalence", "bag_of_words", "tabular_and_words"], without, tmp_path, seed=0)
    assert [part.model.iloc[0] for part in parts] == ["prevalence"]
    *lines, fitted = capsys.readouterr().err.splitlines()
    assert fitted.startswith("prevalence: ")
    assert lines == [
        "bag_of_words: left out, since no training sample sees a note",
        "tabular_and_words: left out, since no training sample sees a note",
    ]


class Foreign(LogisticRegression):
    """A type that no baseline of ehrdl holds."""


def test_a_stored_file_that_holds_a_foreign_type_is_refused(tmp_path):
    model = Pipeline([("model", Foreign())]).fit([[0.0], [1.0]], [0, 1])
    save(model, tmp_path / "foreign.skops")
    with pytest.raises(ConfigError, match=r"holds the type .*Foreign, which no model of ehrdl has; it is not loaded"):
        load(tmp_path / "foreign.skops")


def test_a_baseline_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="baselines: 'lasso' is not one of prevalence, logistic_regression"):
        check_baselines(["prevalence", "lasso"], "readmission")


def test_a_baseline_that_stands_twice_is_refused():
    with pytest.raises(ConfigError, match="baselines: 'lace' stands 2 times; once is enough"):
        check_baselines(["lace", "prevalence", "lace"], "readmission")


def test_a_score_of_another_task_is_refused_where_it_was_asked_for_and_left_out_where_it_was_not(capsys):
    with pytest.raises(ConfigError, match="baselines: 'lace' is a score of readmission, not of the task heart_failure"):
        check_baselines(["prevalence", "lace"], "heart_failure", DEFAULT)
    expected = [name for name in DEFAULT if name not in SCORES]
    assert check_baselines(list(DEFAULT), "heart_failure", DEFAULT) == expected
    assert capsys.readouterr().err.splitlines() == [
        "lace, hospital, lace_retrospective, hospital_retrospective: left out, since they score readmission, "
        "not heart_failure"
    ]
    assert check_baselines(list(DEFAULT), "readmission", DEFAULT) == DEFAULT


def test_the_default_baselines_are_all_that_there_are():
    assert [*BASELINES, *SCORES] == DEFAULT


def test_a_forest_is_the_same_on_one_core_and_on_all(prepared, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(joblib, "parallel_config", lambda **_: contextlib.nullcontext())
    [alone] = fit_baselines(["random_forest"], prepared, tmp_path, seed=0)
    np.testing.assert_array_equal(alone.prob, fitted[1]["random_forest"].prob)


def test_no_baselines_leave_no_folder(prepared, tmp_path):
    assert fit_baselines([], prepared, tmp_path, seed=0) == []
    assert list(tmp_path.iterdir()) == []


def test_classical_models_may_be_fitted_on_a_draw_of_each_subject_s_samples(prepared):
    train = prepared.samples[prepared.samples.split == "train"]
    assert train.groupby("subject_id").size().max() > 1
    drawn = thinned(prepared, 1, 0).samples
    kept = drawn[drawn.split == "train"]
    assert set(kept.subject_id) == set(train.subject_id) and not kept.subject_id.duplicated().any()
    assert set(kept.sample_id) != set(train.drop_duplicates("subject_id").sample_id)  # drawn, not the first
    others = prepared.samples.split != "train"
    pd.testing.assert_frame_equal(drawn[others], prepared.samples[others])
    assert thinned(prepared, None, 0) is prepared
    pd.testing.assert_frame_equal(thinned(prepared, 1, 0).samples, drawn)
