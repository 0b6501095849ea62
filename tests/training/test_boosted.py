"""Boosted baselines beside the others: on the rich table, while those that read the plain one stay as they were."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from ehrdl.comparators import baseline
from ehrdl.comparators.baseline import check_baselines, fit_baselines
from ehrdl.comparators.saved import baseline_probs
from ehrdl.data.features.table import RICH, tabulate
from ehrdl.errors import ConfigError, MissingExtraError
from ehrdl.models.baselines.boosted import BOOSTED
from ehrdl.options.training import Boosting
from ehrdl.schema import HELD_OUT, REGRESSION, TRAIN, TUNING, OutputSpec

pytestmark = pytest.mark.slow  # each fits boosted trees to a small hospital
NAMES = ["logistic_regression", *BOOSTED]


@pytest.fixture(scope="module")
def fitted(prepared, tmp_path_factory):
    """Run folder and PREDICTIONS by name, of two outputs: the readmission, and a number that the age decides."""
    samples = prepared.samples.copy()
    samples["label_days"] = prepared.dataset.static[:, 0] / 10
    samples.loc[prepared.rows(TRAIN)[:9], "label_days"] = np.nan
    outputs = (*prepared.spec.outputs, OutputSpec("days", REGRESSION, "d"))
    spec = dataclasses.replace(prepared.spec, outputs=outputs, label_mean=(0.0, 5.0), label_std=(1.0, 2.0))
    changed = dataclasses.replace(prepared, samples=samples, spec=spec)
    folder = tmp_path_factory.mktemp("boosted")
    parts = fit_baselines(NAMES, changed, folder, seed=0, boosting=Boosting(trials=2))
    return changed, folder, dict(zip(NAMES, parts, strict=True))


def test_a_linear_model_beside_boosted_trees_is_the_one_that_stands_alone(prepared, fitted, tmp_path):
    [alone] = fit_baselines(["logistic_regression"], prepared, tmp_path, seed=0)
    beside = fitted[2]["logistic_regression"]
    np.testing.assert_array_equal(beside.prob[beside.output == "readmission"], alone.prob)


def test_the_rich_table_is_made_for_boosted_trees_alone(prepared, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(baseline, "tabulate", lambda d, rows, rich: asked.append(rich) or tabulate(d, rows, rich))
    fit_baselines(["prevalence"], prepared, tmp_path, seed=0)
    assert asked == [False] * 3


@pytest.mark.parametrize("name", BOOSTED)
def test_every_tuning_and_held_out_sample_has_a_prediction_of_each_output(fitted, name):
    prepared, _, parts = fitted
    part = parts[name]
    wanted = sorted([*prepared.rows(TUNING), *prepared.rows(HELD_OUT)])
    for output in ("readmission", "days"):
        assert sorted(part.sample_id[part.output == output]) == wanted
    readmission, days = part[part.output == "readmission"], part[part.output == "days"]
    assert readmission.prob.between(0, 1).all() and readmission.prob_calibrated.notna().all()
    assert days.prob.isna().all()
    assert np.abs(days.value - days.label).mean() < 0.4 * np.abs(days.label - days.label.mean()).mean()


@pytest.mark.parametrize("name", BOOSTED)
def test_its_files_say_what_was_tried_and_that_the_rich_columns_are_read(fitted, name):
    facts = json.loads((fitted[1] / "models" / f"{name}-readmission.json").read_text())
    assert [set(trial) for trial in facts["trials"]] == [{"params", "n_trees", "tuning_loss"}] * 2
    assert {f"creatinine__{statistic}" for statistic in ("last", *RICH)} <= set(facts["columns"])
    assert "text" not in facts["columns"]


def test_stored_models_predict_what_the_fitted_ones_did(fitted):
    prepared, folder, parts = fitted
    models = folder / "models"
    found = dict(baseline_probs(models, prepared, [path.name for path in models.iterdir()]))
    assert list(found) == NAMES
    for name in BOOSTED:
        part = parts[name]
        prob = part.prob[part.output == "readmission"], part.value[part.output == "days"]
        rows = part.sample_id[part.output == "readmission"].to_numpy()
        np.testing.assert_allclose(found[name][rows], np.stack(prob, axis=1), rtol=0, atol=1e-12)


def test_boosted_baselines_are_known_by_name_and_need_their_library(monkeypatch):
    assert check_baselines(list(BOOSTED), "readmission") == list(BOOSTED)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"lightgbm is not installed: pip install 'ehrdl\[boost\]'"):
        check_baselines(["lightgbm"], "readmission")


def test_no_trial_is_refused():
    with pytest.raises(ConfigError, match=r"boosting\.trials: 0 is below 1"):
        Boosting(trials=0)
