from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from skops import io

from ehrdl.errors import ConfigError
from ehrdl.models.baselines.tabular import BASELINES, READS_TEXT, TRUSTED, candidates, fit, shared_phrases

N_TRAIN, N = 600, 1000


@pytest.fixture(scope="module")
def hospital():
    """X and labels: creatinine matters and is half missing, "lives alone" matters, one column is never measured."""
    draw = np.random.default_rng(0)
    creatinine, sodium = draw.normal(1, 1, N), draw.normal(140, 4, N)
    alone = draw.random(N) < 0.5
    logit = 2.5 * (creatinine - 1) + 3.0 * alone - 1.5
    label = (draw.random(N) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    text = np.where(alone, "pt lives alone at home", "pt lives with family at home").astype(object)
    text[::10] = ""
    creatinine[draw.random(N) < 0.3] = np.nan
    table = pd.DataFrame({"creatinine": creatinine, "sodium": sodium, "never": np.nan, "same": 1.0, "text": text})
    return table, label


def _fit(name, hospital, which=0):
    table, label = hospital
    return candidates(name, seed=0)[which].fit(table[:N_TRAIN], label[:N_TRAIN])


def test_baselines_have_the_names_of_the_design():
    tables = {"prevalence", "logistic_regression", "random_forest", "gradient_boosting"}
    assert set(BASELINES) == tables | {"bag_of_words", "tabular_and_words"}
    assert set(READS_TEXT) == {"bag_of_words", "tabular_and_words"}


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_has_at_most_four_candidates_and_each_fits_without_a_warning(name, hospital):
    assert 1 <= len(candidates(name, seed=0)) <= 4
    for which in range(len(candidates(name, seed=0))):
        prob = _fit(name, hospital, which).predict_proba(hospital[0][N_TRAIN:])
        assert prob.shape == (N - N_TRAIN, 2)
        assert np.isfinite(prob).all()


def test_prevalence_predicts_the_training_share_for_everybody(hospital):
    table, label = hospital
    prob = _fit("prevalence", hospital).predict_proba(table)[:, 1]
    assert prob == pytest.approx(np.full(N, label[:N_TRAIN].mean()))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("logistic_regression", 0.70, 0.80),
        ("random_forest", 0.68, 0.80),
        ("gradient_boosting", 0.68, 0.80),
        ("bag_of_words", 0.65, 0.75),
        ("tabular_and_words", 0.80, 0.90),
    ],
)
def test_baseline_learns_the_signal_that_it_can_see_and_no_more(name, low, high, hospital):
    table, label = hospital
    best = max(
        roc_auc_score(label[N_TRAIN:], _fit(name, hospital, which).predict_proba(table[N_TRAIN:])[:, 1])
        for which in range(len(candidates(name, seed=0)))
    )
    assert low < best < high


def test_value_missing_only_at_prediction_is_no_error(hospital):
    table = hospital[0].assign(sodium=np.nan)
    for name in BASELINES:
        assert np.isfinite(_fit(name, hospital).predict_proba(table)).all()


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_comes_back_from_disk_the_same_with_the_allow_list_alone(name, hospital, tmp_path):
    model = _fit(name, hospital)
    io.dump(model, tmp_path / "model.skops")
    assert set(io.get_untrusted_types(file=tmp_path / "model.skops")) <= set(TRUSTED)
    back = io.load(tmp_path / "model.skops", trusted=list(TRUSTED))
    table = hospital[0]
    assert np.abs(back.predict_proba(table) - model.predict_proba(table)).max() < 1e-12


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting"])
def test_same_seed_gives_the_same_trees_and_another_seed_gives_others(name, hospital):
    first, second = (_fit(name, hospital).predict_proba(hospital[0]) for _ in range(2))
    assert np.array_equal(first, second)
    other = candidates(name, seed=1)[0].fit(hospital[0][:N_TRAIN], hospital[1][:N_TRAIN])
    assert not np.array_equal(first, other.predict_proba(hospital[0]))


def test_unknown_baseline_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'xgboost' is not one of prevalence, "):
        candidates("xgboost", seed=0)


TEXT = pd.Series(
    ["lives alone", "lives alone, Zorblatt", "Zorblatt 5550123", "", "lives with Ann", "lives with Ann"] * 4
)
PATIENTS = np.tile([1, 2, 2, 3, 4, 5], 4)


def test_a_phrase_needs_patients_and_not_samples():
    assert shared_phrases(TEXT, PATIENTS, 4) == ["lives"]
    of_two = ["alone", "ann", "lives", "lives alone", "lives with", "with", "with ann"]
    assert shared_phrases(TEXT, PATIENTS, 2) == of_two
    assert shared_phrases(pd.Series(["", ""]), np.array([1, 2]), 1) == []


def test_where_one_patient_is_enough_the_phrases_are_those_that_tfidf_would_learn():
    draw = np.random.default_rng(1)
    words = ["".join(draw.choice(list("abcde"), 3)) for _ in range(80)]
    text = pd.Series([" ".join(draw.choice(words, 12)) for _ in range(60)])
    theirs = TfidfVectorizer(ngram_range=(1, 2), min_df=3, max_features=50_000, sublinear_tf=True).fit(text)
    assert shared_phrases(text, np.arange(60), 1) == theirs.get_feature_names_out().tolist()


def test_of_too_many_phrases_the_most_frequent_are_kept(monkeypatch):
    monkeypatch.setattr("ehrdl.models.baselines.tabular._MAX_PHRASES", 2)
    assert shared_phrases(TEXT, PATIENTS, 1) == ["alone", "lives"]


@pytest.mark.parametrize("name", READS_TEXT)
def test_a_model_learns_the_shared_phrases_alone_and_its_file_names_them_once(name, hospital):
    table, label = hospital
    table = table.assign(text=table.text + np.where(np.arange(N) % 100 == 7, " Zorblatt", ""))
    subjects = np.where(np.arange(N) % 100 == 7, 7, np.arange(N))[:N_TRAIN]
    model = candidates(name, seed=0)[-1]
    fit(model, table[:N_TRAIN], label[:N_TRAIN], shared_phrases(table.text[:N_TRAIN], subjects, 10))
    with ZipFile(BytesIO(io.dumps(model))) as archive:
        stored = b"".join(archive.read(member) for member in archive.namelist())
    assert stored.count(b'"lives with"') == 1
    assert b"zorblatt" not in stored.lower()
    again = io.loads(io.dumps(model), trusted=list(TRUSTED))
    assert np.array_equal(again.predict_proba(table[N_TRAIN:]), model.predict_proba(table[N_TRAIN:]))
    assert roc_auc_score(label[N_TRAIN:], model.predict_proba(table[N_TRAIN:])[:, 1]) > 0.65


def test_a_model_of_words_without_a_word_is_one_line(hospital):
    with pytest.raises(ConfigError, match=r"^data\.notes\.min_patients: no word is in the notes"):
        fit(candidates("bag_of_words", seed=0)[0], hospital[0], hospital[1], [])
