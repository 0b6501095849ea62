"""The ensemble is an equal average of logits; the stack learns from tuning samples alone, and never from its own."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.special import logit as log_odds
from sklearn.linear_model import LogisticRegression

from ehrdl.comparators import blend
from ehrdl.comparators.blend import N_FOLDS, Blend, Combination, fit_blend, fold_of
from ehrdl.comparators.combine import check_members, combined, find_members, fit_combined, load_combination
from ehrdl.errors import ConfigError
from ehrdl.metrics.calibrators import Platt
from ehrdl.options.training import Combine
from ehrdl.schema import BINARY, HELD_OUT, REGRESSION, TRAIN, TUNING, OutputSpec
from ehrdl.training.predict import prediction_rows

BOTH = ["ensemble", "stack"]


@dataclasses.dataclass
class Spec:
    outputs: tuple[OutputSpec, ...]


@dataclasses.dataclass
class Data:
    """What combining reads of prepared data: the samples and their outputs."""

    samples: pd.DataFrame
    spec: Spec

    @property
    def rows(self):
        return np.flatnonzero(self.samples.split != TRAIN)


@pytest.fixture
def data():
    """600 samples of 200 subjects: an outcome and a number, each unknown for some."""
    rng, n = np.random.default_rng(0), 600
    subject = np.repeat(np.arange(200), 3)
    samples = pd.DataFrame(
        {
            "sample_id": np.arange(n),
            "subject_id": subject,
            "prediction_time": pd.Timestamp("2150-01-01"),
            "split": np.array([TRAIN, TUNING, HELD_OUT, TUNING])[subject % 4],
            "label_death": (rng.random(n) < 0.4).astype(np.float32),
            "label_days": rng.normal(5, 2, n).astype(np.float32),
        }
    )
    samples.loc[::17, ["label_death", "label_days"]] = np.nan
    return Data(samples, Spec((OutputSpec("death"), OutputSpec("days", REGRESSION, "d"))))


def predictions(data, model, seed, noise, sharpness=1.0):
    """PREDICTIONS that know something of each label, in a random order of rows."""
    rng = np.random.default_rng([seed, len(model)])
    rows = rng.permutation(data.rows)
    label = data.samples[["label_death", "label_days"]].fillna(0.5).to_numpy()[rows]
    found = label + noise * rng.normal(size=label.shape)
    prob = np.stack([expit(sharpness * (2 * found[:, 0] - 1)), found[:, 1]], axis=1)
    return prediction_rows(data.samples, data.spec.outputs, model, seed, rows, prob)


@pytest.fixture
def parts(data):
    return [
        predictions(data, "fused", 0, 0.8),
        predictions(data, "fused", 1, 0.8),
        predictions(data, "lightgbm", 0, 0.9, sharpness=1.5),
        predictions(data, "series_only", 0, 0.1),
    ]


MEMBERS = ["fused", "lightgbm"]


def of(part, output):
    return part[part.output == output].set_index("sample_id")


def test_the_ensemble_averages_logits_over_seeds_and_then_over_members(data, parts, tmp_path):
    [part] = fit_combined(["ensemble"], MEMBERS, data, parts, tmp_path, seed=0)
    fused0, fused1, light, _ = [of(part, "death").prob for part in parts]
    expected = expit(((log_odds(fused0) + log_odds(fused1)) / 2 + log_odds(light)) / 2)
    np.testing.assert_allclose(of(part, "death").prob, expected.sort_index(), atol=1e-12)
    fused0, fused1, light, _ = [of(part, "days").value for part in parts]
    np.testing.assert_allclose(of(part, "days").value, ((fused0 + fused1) / 2 + light) / 2, atol=1e-12)
    assert set(part.model) == {"ensemble"} and set(part.seed) == {0}


def test_the_ensemble_of_one_deep_model_averages_its_seeds(data, parts, tmp_path):
    [part] = fit_combined(["ensemble"], ["fused"], data, parts, tmp_path, seed=0)
    fused = [log_odds(of(part, "death").prob) for part in parts[:2]]
    np.testing.assert_allclose(of(part, "death").prob, expit((fused[0] + fused[1]) / 2), atol=1e-12)


def test_combined_models_are_calibrated_on_tuning(data, parts, tmp_path):
    for part in fit_combined(BOTH, MEMBERS, data, parts, tmp_path, seed=0):
        own = of(part, "death")
        tuning = own[(own.split == TUNING) & own.label.notna()]
        assert tuning.prob_calibrated.mean() == pytest.approx(tuning.label.mean(), abs=1e-6)


@pytest.mark.parametrize("split", [HELD_OUT, TRAIN])
def test_labels_of_other_splits_change_no_combined_model(split, data, parts, tmp_path):
    before = fit_combined(BOTH, MEMBERS, data, parts, tmp_path / "a", seed=0)
    other = data.samples.split == split
    data.samples.loc[other, "label_death"] = 1 - data.samples.label_death[other]
    data.samples.loc[other, "label_days"] += 7
    after = fit_combined(BOTH, MEMBERS, data, parts, tmp_path / "b", seed=0)
    for one, two in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(one.drop(columns="label"), two.drop(columns="label"))


def test_a_tuning_sample_is_predicted_by_a_stack_that_never_saw_its_subject(data, parts, tmp_path):
    [before] = fit_combined(["stack"], MEMBERS, data, parts, tmp_path / "a", seed=0)
    fold = fold_of(data.samples.subject_id.to_numpy())
    own = (data.samples.split == TUNING) & (fold == 2)
    data.samples.loc[own, "label_death"] = 1 - data.samples.label_death[own]
    [after] = fit_combined(["stack"], MEMBERS, data, parts, tmp_path / "b", seed=0)
    before, after = of(before, "death"), of(after, "death")
    in_fold = before.index.isin(np.flatnonzero(own))
    np.testing.assert_array_equal(after.prob[in_fold], before.prob[in_fold])
    assert (after.prob[~in_fold] != before.prob[~in_fold]).all()


def test_folds_keep_a_subject_together_and_are_about_equal():
    subject = np.arange(10_000)
    fold = fold_of(subject)
    assert np.bincount(fold, minlength=N_FOLDS) == pytest.approx(np.full(N_FOLDS, 2000), rel=0.1)
    np.testing.assert_array_equal(fold_of(subject[::-1])[::-1], fold)


def known(seed=1, n=800):
    """Three members: the first knows most, the second a little, the third is against it."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(-1, 1.5, n)
    x = np.stack([risk + 0.5 * rng.normal(size=n), risk + 3 * rng.normal(size=n), -risk], axis=1)
    return x, (rng.random(n) < expit(risk)).astype(float)


def test_a_stack_with_a_wide_prior_is_the_logistic_regression_where_no_weight_is_below_zero(monkeypatch):
    monkeypatch.setattr(blend, "PRIOR_SD", 1e4)
    x, label = known()
    x = x[:, :2]
    found = fit_blend(x, label, BINARY)
    free = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(x, label)
    assert (free.coef_ > 0).all()
    np.testing.assert_allclose(found.weights, free.coef_[0], atol=1e-4)
    assert found.intercept == pytest.approx(free.intercept_[0], abs=1e-4)


def test_a_stack_of_numbers_with_a_wide_prior_is_least_squares(monkeypatch):
    monkeypatch.setattr(blend, "PRIOR_SD", 1e4)
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (300, 2))
    value = 1 + x @ [0.3, 0.9] + rng.normal(size=300)
    found = fit_blend(x, value, REGRESSION)
    free = np.linalg.lstsq(np.c_[np.ones(300), x], value, rcond=None)[0]
    np.testing.assert_allclose([found.intercept, *found.weights], free, atol=1e-4)


def test_no_member_counts_against_the_outcome():
    found = fit_blend(*known(), BINARY)
    assert found.weights[2] == 0
    assert found.weights[0] > found.weights[1] >= 0


def test_few_samples_leave_the_weights_nearly_equal_and_one_class_leaves_them_equal():
    x, label = known(n=800)
    few = fit_blend(x[:12, :2], label[:12], BINARY)
    many = fit_blend(x[:, :2], label, BINARY)
    assert max(abs(w - 0.5) for w in few.weights) < 0.25 < max(abs(w - 0.5) for w in many.weights)
    assert fit_blend(x[:12, :2], np.zeros(12), BINARY) == Blend(0.0, [0.5, 0.5])
    assert fit_blend(x[:0, :2], np.zeros(0), REGRESSION) == Blend(0.0, [0.5, 0.5])


def test_stored_combined_models_predict_the_same_from_new_predictions_of_their_members(data, parts, tmp_path):
    made = fit_combined(BOTH, MEMBERS, data, parts, tmp_path, seed=0)
    again = combined(tmp_path / "models", data, parts, 0, {}, files(tmp_path))
    for one, two in zip(made, again, strict=True):
        pd.testing.assert_frame_equal(one.drop(columns="prob_calibrated"), two.drop(columns="prob_calibrated"))
        assert two.prob_calibrated.isna().all()
    platt = {("stack", 0): {"death": Platt(0.0, 2.0)}}
    stack = combined(tmp_path / "models", data, parts, 0, platt, files(tmp_path))[1]
    np.testing.assert_allclose(log_odds(of(stack, "death").prob_calibrated), 2 * log_odds(of(stack, "death").prob))


def test_new_patients_get_the_stack_of_all_tuning_samples(data, parts, tmp_path):
    fit_combined(["stack"], MEMBERS, data, parts, tmp_path, seed=0)
    data.samples["split"] = HELD_OUT
    [part] = combined(tmp_path / "models", data, parts, 0, {}, files(tmp_path))
    stored = json.loads((tmp_path / "models" / "stack-death.json").read_text())
    assert stored["members"] == MEMBERS and len(stored["folds"]) == N_FOLDS
    fused0, fused1, light, _ = [log_odds(of(part, "death").prob) for part in parts]
    weights = stored["blend"]["weights"]
    expected = expit(stored["blend"]["intercept"] + weights[0] * (fused0 + fused1) / 2 + weights[1] * light)
    np.testing.assert_allclose(of(part, "death").prob, expected.sort_index(), atol=1e-12)


def files(folder):
    return {path.name for path in (folder / "models").iterdir()}


def test_a_combination_whose_member_is_left_out_is_left_out_with_a_line(data, parts, tmp_path, capsys):
    fit_combined(BOTH, MEMBERS, data, parts, tmp_path, seed=0)
    assert combined(tmp_path / "models", data, parts[:2], 0, {}, files(tmp_path)) == []
    assert capsys.readouterr().err.splitlines() == [
        "ensemble: left out, since its member lightgbm is",
        "stack: left out, since its member lightgbm is",
    ]


def test_a_file_that_is_no_combined_model_is_refused(tmp_path):
    path = tmp_path / "stack-death.json"
    for content in ("junk", "{}", '{"blend": {"a": 1}, "folds": []}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"stack-death\.json: is (damaged|no combined model)"):
            load_combination(path)


def test_a_combination_of_folds_reads_them_for_tuning_alone():
    folds = [Blend(float(i), [0.0]) for i in range(N_FOLDS)]
    model = Combination(REGRESSION, ["fused"], Blend(9.0, [0.0]), folds)
    subject = np.arange(50)
    split = np.where(subject % 2 == 0, TUNING, HELD_OUT)
    expected = np.where(split == TUNING, fold_of(subject), 9)
    np.testing.assert_array_equal(model.predict(np.zeros((50, 1)), subject, split), expected)


def members(combine, deep=("fused", "notes_only", "series_only"), baselines=("prevalence", "lightgbm"), seeds=(0,)):
    return find_members(combine, list(deep), list(baselines), list(seeds))


def test_members_are_the_main_deep_model_and_the_boosted_ones_that_are_there():
    assert members(Combine(BOTH)) == ["fused", "lightgbm"]
    assert members(Combine(BOTH), baselines=["xgboost", "lace", "lightgbm"]) == ["fused", "lightgbm", "xgboost"]
    assert members(Combine(BOTH), deep=["series_only"]) == ["series_only", "lightgbm"]
    assert members(Combine(["ensemble"]), baselines=[], seeds=[0, 1]) == ["fused"]
    assert members(Combine(BOTH, ["notes_only", "prevalence"])) == ["notes_only", "prevalence"]
    assert members(Combine()) == []


@pytest.mark.parametrize(
    ("combine", "baselines", "says"),
    [
        (Combine(["ensemble"]), [], r"combine\.models: fused of one seed is nothing to combine"),
        (Combine(["stack"]), [], r"combine\.models: 'stack' needs two members, and there is fused alone"),
        (
            Combine(["stack"], ["fused", "xgboost"]),
            ["lightgbm"],
            r"combine\.members: 'xgboost' is no model of this run",
        ),
        (Combine(["stack"], ["fused", "stack"]), ["lightgbm"], r"combine\.members: 'stack' is no model of this run"),
        (Combine(["ensemble"], ["fused", "lace_retrospective"]), ["lace_retrospective"], "cannot be used at the bed"),
    ],
)
def test_what_cannot_be_combined_is_refused(combine, baselines, says):
    with pytest.raises(ConfigError, match=says):
        members(combine, baselines=baselines)


def test_a_baseline_of_text_is_no_member_where_there_are_no_notes():
    with pytest.raises(ConfigError, match="'bag_of_words' is no model of this run; there are series_only, lightgbm"):
        members(Combine(["stack"], ["series_only", "bag_of_words"]), ["series_only"], ["bag_of_words", "lightgbm"])
    check_members(["notes_only", "bag_of_words"], ["notes_only", "bag_of_words"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": ["vote"]}, r"combine\.models: 'vote' is not one of ensemble, stack"),
        ({"models": ["stack", "stack"]}, r"combine\.models: 'stack' stands 2 times"),
        ({"models": ["stack"], "members": ["fused", "fused"]}, r"combine\.members: 'fused' stands 2 times"),
        ({"models": ["stack"], "members": []}, r"combine\.members: \[\] is empty"),
        ({"members": ["fused"]}, r"combine\.members: are of no model"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(options, says):
    with pytest.raises(ConfigError, match=says):
        Combine(**options)
