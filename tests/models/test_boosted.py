"""LightGBM and XGBoost: tuned on the tuning split, the same from disk and in another process, refused in one line."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score

from ehrdl.comparators.boosted_files import load_boosted, save_boosted
from ehrdl.errors import ConfigError, MissingExtraError
from ehrdl.models.baselines.boosted import (
    BOOSTED,
    LIBRARIES,
    MAX_TREES,
    Part,
    boosted_trials,
    check_boosted,
    fit_boosted,
    require,
)
from ehrdl.schema import REGRESSION

N_TRAIN, N_TUNING, N = 400, 600, 1000


@pytest.fixture(scope="module")
def hospital():
    """A step in creatinine matters and is half missing, sodium is noise, one column is never measured."""
    draw = np.random.default_rng(0)
    creatinine, sodium = draw.normal(1, 1, N), draw.normal(140, 4, N)
    logit = 3.0 * (creatinine > 1.2) - 2.0
    label = (draw.random(N) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    creatinine[draw.random(N) < 0.2] = np.nan
    table = pd.DataFrame({"creatinine [mg/dL]": creatinine, "sodium": sodium, "never": np.nan, "text": "note"})
    return table, label


def logloss(label, prob):
    return log_loss(label, prob, labels=[0, 1])


def parts(hospital):
    table, label = hospital
    return (table[:N_TRAIN], label[:N_TRAIN]), (table[N_TRAIN:N_TUNING], label[N_TRAIN:N_TUNING])


@pytest.fixture(scope="module")
def fitted(hospital):
    """A model of each library, of three trials."""
    return {name: fit_boosted(name, *parts(hospital), seed=0, trials=boosted_trials(name, 3, 0)) for name in BOOSTED}


@pytest.mark.parametrize("name", BOOSTED)
def test_the_step_is_found_and_what_was_never_measured_is_not_read(name, fitted, hospital):
    table, label = hospital
    prob = fitted[name].predict(table[N_TUNING:])
    assert roc_auc_score(label[N_TUNING:], prob) > 0.7
    assert fitted[name].columns == ["creatinine [mg/dL]", "sodium"]


@pytest.mark.parametrize("name", BOOSTED)
def test_the_trial_of_the_lowest_tuning_loss_is_kept_with_its_number_of_trees(name, fitted, hospital):
    model = fitted[name]
    _, (table, label) = parts(hospital)
    losses = [trial["tuning_loss"] for trial in model.trials]
    assert len(losses) == 3
    assert logloss(label, model.predict(table)) == min(losses)
    best = model.trials[losses.index(min(losses))]
    n_trees = model.booster.num_trees() if name == "lightgbm" else model.booster.num_boosted_rounds()
    assert model.n_trees == best["n_trees"] == n_trees < MAX_TREES


@pytest.mark.parametrize("name", BOOSTED)
def test_more_trees_than_were_kept_have_no_lower_tuning_loss(name, hospital):
    """The first trial alone, against its own course refitted without early stopping."""
    train, tuning = parts(hospital)
    model = fit_boosted(name, train, tuning, seed=0, trials=boosted_trials(name, 1, 0))
    library = LIBRARIES[name]
    data = library.bin(*(Part(table[model.columns], label) for table, label in (train, tuning)))[0]
    x = tuning[0][model.columns].to_numpy(np.float32)
    if name == "lightgbm":
        options = {**library._fixed, **library.first, "objective": "binary", "seed": 0, "verbosity": -1}
        longer = require(name).train(options, data, model.n_trees + 30)
        course = [logloss(tuning[1], longer.predict(x, num_iteration=n)) for n in range(1, model.n_trees + 31)]
    else:
        options = {**library.first, "objective": "binary:logistic", "tree_method": "hist", "seed": 0, "verbosity": 0}
        longer = require(name).train(options, data, model.n_trees + 30)
        course = [
            logloss(tuning[1], longer.inplace_predict(x, iteration_range=(0, n)).astype(float))
            for n in range(1, model.n_trees + 31)
        ]
    assert int(np.argmin(course)) + 1 == pytest.approx(model.n_trees, abs=1)  # float32 losses may tie
    assert logloss(tuning[1], model.predict(tuning[0])) == pytest.approx(min(course), abs=1e-6)


@pytest.mark.parametrize("name", BOOSTED)
def test_a_number_is_predicted_for_a_regression_output(name, hospital):
    table, _ = hospital
    days = (3 + 2 * (table["sodium"] > 140)).to_numpy(np.float32)
    train, tuning = (table[:N_TRAIN], days[:N_TRAIN]), (table[N_TRAIN:N_TUNING], days[N_TRAIN:N_TUNING])
    model = fit_boosted(name, train, tuning, seed=0, trials=boosted_trials(name, 2, 0), kind=REGRESSION)
    value = model.predict(table[N_TUNING:])
    assert mean_squared_error(days[N_TUNING:], value) < 0.05 * days.var()


@pytest.mark.parametrize("name", BOOSTED)
def test_same_seed_gives_the_same_trees_and_another_seed_others(name, hospital, fitted):
    table = hospital[0]
    again = fit_boosted(name, *parts(hospital), seed=0, trials=boosted_trials(name, 3, 0))
    np.testing.assert_array_equal(again.predict(table), fitted[name].predict(table))
    assert again.trials == fitted[name].trials
    other = fit_boosted(name, *parts(hospital), seed=1, trials=boosted_trials(name, 3, 1))
    assert not np.array_equal(other.predict(table), fitted[name].predict(table))


@pytest.mark.parametrize("name", BOOSTED)
def test_trials_start_at_the_fixed_choice_and_more_of_them_add_to_the_fewer(name):
    library, many = LIBRARIES[name], boosted_trials(name, 200, seed=0)
    assert many[0] == library.first
    assert boosted_trials(name, 20, seed=0) == many[:20]
    assert boosted_trials(name, 20, seed=1)[1:] != many[1:20]
    for key, where in library.space.items():
        values = np.array([params[key] for params in many[1:]])
        assert where.low <= values.min() < values.max() <= where.high
        middle = np.sqrt(where.low * where.high) if where.log else (where.low + where.high) / 2
        assert 0.35 < (values < middle).mean() < 0.65
    assert all(library.first.keys() == params.keys() == library.space.keys() for params in many)


@pytest.mark.parametrize("name", BOOSTED)
def test_a_stored_model_predicts_the_same_here_and_in_another_process(name, fitted, hospital, tmp_path):
    table = hospital[0]
    save_boosted(fitted[name], tmp_path, "death.in.hospital")
    prob = fitted[name].predict(table)
    np.testing.assert_array_equal(load_boosted(tmp_path, name, "death.in.hospital").predict(table), prob)
    table.to_parquet(tmp_path / "table.parquet")
    code = (
        "import pandas as pd; from pathlib import Path; from ehrdl.comparators.boosted_files import load_boosted;"
        f"here = Path({str(tmp_path)!r}); table = pd.read_parquet(here / 'table.parquet');"
        f"load_boosted(here, {name!r}, 'death.in.hospital').predict(table).tofile(here / 'prob')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "prob"), prob)


@pytest.mark.parametrize("name", BOOSTED)
def test_a_column_that_is_absent_later_is_read_as_missing(name, fitted, hospital):
    table = hospital[0]
    without = fitted[name].predict(table[["text", "sodium"]])
    np.testing.assert_array_equal(without, fitted[name].predict(table.assign(**{"creatinine [mg/dL]": np.nan})))
    np.testing.assert_array_equal(fitted[name].predict(table[table.columns[::-1]]), fitted[name].predict(table))


@pytest.mark.parametrize("name", BOOSTED)
@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_stored_file_that_is_junk_is_refused_by_name(name, content, fitted, tmp_path, capfd):
    save_boosted(fitted[name], tmp_path, "death")
    path = tmp_path / f"{name}-death.{LIBRARIES[name].suffix}"
    path.write_bytes(content)
    says = rf"{path.name}: is no model of {name} of this version of ehrdl \("
    with pytest.raises(ConfigError, match=says) as refused:
        load_boosted(tmp_path, name, "death")
    assert "\n" not in str(refused.value)
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path.name}: is no model of {name}"):
        load_boosted(tmp_path, name, "death")


@pytest.mark.parametrize("name", BOOSTED)
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # what Python itself does for a module that is not there
    with pytest.raises(MissingExtraError, match=rf"baselines: {name} is not installed: pip install 'ehrdl\[boost\]'"):
        require(name)


@pytest.mark.parametrize("name", BOOSTED)
def test_given_parameters_are_one_trial_and_the_others_keep_the_fixed_choice(name):
    key = next(iter(LIBRARIES[name].space))
    [alone] = boosted_trials(name, 20, seed=0, given={key: 0.07})
    assert alone == LIBRARIES[name].first | {key: 0.07}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"depth": 3}, "baseline_params.lightgbm.depth: there is no such parameter; lightgbm takes learning_rate, "),
        ({"num_leaves": 0}, "baseline_params.lightgbm.num_leaves: 0 is not between 2 and 131072"),
        ({"lambda_l2": "much"}, "baseline_params.lightgbm.lambda_l2: expected float, got 'much'"),
        ({"lambda_l2": float("inf")}, "baseline_params.lightgbm.lambda_l2: inf is not finite"),
        ({"num_leaves": 4.5}, "baseline_params.lightgbm.num_leaves: expected int, got 4.5"),
        ({"bagging_fraction": 1.5}, "baseline_params.lightgbm.bagging_fraction: 1.5 is not above 0 and at most 1"),
    ],
)
def test_parameters_that_cannot_be_are_named(given, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        check_boosted("lightgbm", given)
