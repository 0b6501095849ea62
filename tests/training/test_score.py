"""LACE and HOSPITAL on a hand-made patient: every item, just before and just after it can be known."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical import charlson
from ehrdl.clinical.concepts import Channel
from ehrdl.comparators.clinical_scores import fit_scores, load_score, score_items, score_points
from ehrdl.data.features.history import read_history
from ehrdl.models.baselines.scores import SCORES, ScoreModel
from ehrdl.schema import TRAIN

DAY = 24.0
T0 = 116 * DAY + 14
LAG = 7 * DAY
CHANNELS = tuple(Channel(name, "numeric", "lab", "", 0.0, 300.0) for name in ("hemoglobin", "sodium"))

#: (hour, hours until it is known, code, stay). Three stays: acute, planned, and the index stay, acute by way of the
#: emergency department.
FACTS = [
    (10, 0, "ADMISSION//EMERGENCY ROOM", 1),
    (3 * DAY, 0, "DISCHARGE//HOME", 1),
    (3 * DAY, 0, "ADMISSION_TYPE//EW EMER.", 1),
    (3 * DAY, LAG, "DIAGNOSIS//ICD10//I500", 1),
    (3 * DAY, LAG, "DIAGNOSIS//ICD9//25000", 1),
    (50 * DAY, 0, "TRANSFER_IN//Emergency Department", None),
    (99 * DAY, 0, "ED_IN", 2),
    (100 * DAY, 0, "ADMISSION//PHYSICIAN REFERRAL", 2),
    (106 * DAY, 0, "DISCHARGE//HOME", 2),
    (106 * DAY, 0, "ADMISSION_TYPE//ELECTIVE", 2),
    (106 * DAY, LAG, "DIAGNOSIS//ICD10//C780", 2),
    (106 * DAY, LAG, "PROCEDURE//ICD10//0DB68ZX", 2),
    (110 * DAY - 2, 0, "ED_IN", 3),
    (110 * DAY + 1, 0, "ADMISSION//EMERGENCY ROOM", 3),
    (110 * DAY + 1, 0, "SERVICE_IN//MED", 3),
    (112 * DAY, 0, "SERVICE_IN//OMED", 3),
    (T0, 0, "DISCHARGE//HOME", 3),
    (T0, 0, "ADMISSION_TYPE//EW EMER.", 3),
    (T0, LAG, "DIAGNOSIS//ICD10//N185", 3),
    (T0, LAG, "PROCEDURE//ICD10//5A1D70Z", 3),
]
#: (subject, hour, hour that it is known, channel, value): the ED's sodium, and a haemoglobin that comes too late.
LABS = [
    (1, 105 * DAY, 105 * DAY, 1, 150.0),
    (1, 110 * DAY - 1, 110 * DAY, 1, 134.0),
    (1, 115 * DAY, 115 * DAY + 1, 0, 11.0),
    (1, T0 - 1, T0 + 1, 0, 14.0),
]


@pytest.fixture
def items(tmp_path, build):
    """Writes facts as EVENTS and reads the items of the index stay, or the points of a score."""

    def read(facts=FACTS, labs=LABS, retrospective=False, score=None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "data").mkdir(parents=True)
        hour, lag, code, stay = zip(*facts, strict=True)
        time = pd.to_timedelta(np.array(hour), unit="h") + pd.Timestamp("2150-01-01")
        events = pd.DataFrame({"subject_id": 1, "time": time.astype("datetime64[us]"), "code": code})
        events["available_time"] = (time + pd.to_timedelta(np.array(lag), unit="h")).astype("datetime64[us]")
        events["encounter_id"] = pd.array(stay, dtype="Int64")
        events.to_parquet(folder / "data" / "0.parquet")
        origin = (pd.Timestamp("2150-01-01") - pd.Timestamp(0)) / pd.Timedelta(hours=1)
        store = build.store([(s, origin + t, origin + a, c, v) for s, t, a, c, v in labs], CHANNELS)
        at = [pd.Timestamp("2150-01-01") + pd.Timedelta(hours=T0)]
        samples = pd.DataFrame({"sample_id": [0], "subject_id": [1], "encounter_id": [3], "prediction_time": at})
        history = read_history(folder)
        if score:
            return int(score_points(score, history, samples, store)[0])
        return score_items(history, samples, store, retrospective).iloc[0]

    return read


def _names(row):
    return {name for bit, name in enumerate(charlson.NAMES) if row.comorbidity >> bit & 1}


def test_every_item_is_read_from_what_was_known_at_discharge(items):
    row = items()
    assert row.length_of_stay_days == 6
    assert row.acute and row.oncology and not row.procedure
    assert _names(row) == {"heart_failure", "diabetes", "metastatic_cancer"}
    assert (row.emergency_visits, row.admissions) == (2, 2)
    assert (row.hemoglobin, row.sodium) == (11, 134)


def test_the_retrospective_version_adds_the_codes_of_the_stay_itself_and_nothing_else(items):
    now, later = items(), items(retrospective=True)
    assert _names(later) - _names(now) == {"renal"}
    assert later.procedure
    same = [name for name in now.index if name not in ("comorbidity", "procedure")]
    assert now[same].equals(later[same])


@pytest.mark.parametrize(
    ("score", "points"),
    [
        ("lace", 4 + 3 + 5 + 2),
        ("hospital", 1 + 2 + 1 + 0 + 1 + 2 + 2),
        ("lace_retrospective", 14),
        ("hospital_retrospective", 10),
    ],
)
def test_points_are_those_of_the_published_tables(items, score, points):
    assert items(score=score) == points


def _with(code, hour=None, lag=None):
    return [(h if hour is None else hour, a if lag is None else lag, c, s) if c == code else (h, a, c, s)
            for h, a, c, s in FACTS]  # fmt: skip


def test_a_code_counts_at_the_moment_it_is_known_and_not_a_moment_before(items):
    code = "DIAGNOSIS//ICD10//C780"
    microsecond = 1 / 3.6e9
    assert "metastatic_cancer" in _names(items(_with(code, lag=T0 - 106 * DAY)))
    assert "metastatic_cancer" not in _names(items(_with(code, lag=T0 - 106 * DAY + 10 * microsecond)))


def test_procedures_of_earlier_stays_are_not_of_this_one(items):
    assert not items([fact for fact in FACTS if fact[2] != "PROCEDURE//ICD10//5A1D70Z"], retrospective=True).procedure


@pytest.mark.parametrize(("hour", "visits"), [(110 * DAY + 1 - 183 * DAY, 2), (110 * DAY - 183 * DAY, 1)])
def test_emergency_visits_reach_back_six_months_from_admission(items, hour, visits):
    assert items(_with("TRANSFER_IN//Emergency Department", hour=hour)).emergency_visits == visits


def test_admissions_reach_back_a_year_and_observation_is_none(items):
    moved = [(h - 300 * DAY if s == 1 else h, a, c, s) for h, a, c, s in FACTS]
    assert items(moved).admissions == 1
    observed = [(h, a, c.replace("ELECTIVE", "EU OBSERVATION"), s) for h, a, c, s in FACTS]
    assert items(observed).admissions == 1


def test_stays_that_touch_are_one_stay(items):
    joined = [(110 * DAY + 0.5 if (c, s) == ("DISCHARGE//HOME", 2) else h, a, c, s) for h, a, c, s in FACTS]
    row = items(joined)
    assert row.length_of_stay_days == 16
    assert not row.acute
    assert (row.admissions, row.emergency_visits) == (1, 1)


def test_what_comes_after_the_prediction_changes_nothing(items):
    before = items()
    future = [fact for fact in FACTS if fact[0] + fact[1] <= T0]
    future += [(T0 + 2, 0, "ADMISSION//EMERGENCY ROOM", 4), (T0 + 1, 0, "ED_IN", 4), (T0 + 9, 0, "DISCHARGE//DIED", 4)]
    future += [(T0 + 1, 0, "SERVICE_IN//SURG", 3), (T0 - 50, 51, "DIAGNOSIS//ICD10//B20", 1)]
    assert items(future, [*LABS[:3], (1, T0 - 1, T0 + 2, 1, 99.0)]).equals(before)


def test_a_record_without_codes_or_labs_gives_the_points_of_the_stay_alone(items):
    bare = [fact for fact in FACTS if fact[2].split("//")[0] in ("ADMISSION", "DISCHARGE") and fact[3] == 3]
    row = items(bare, [])
    assert np.isnan(row.hemoglobin) and np.isnan(row.sodium)
    assert (row.comorbidity, row.emergency_visits, row.admissions) == (0, 0, 0)
    assert not row.acute and not row.oncology and row.length_of_stay_days == 6
    assert [items(bare, [], score=score) for score in SCORES] == [4, 2, 4, 2]


def test_a_fitted_score_predicts_the_training_prevalence_on_average_and_comes_back_from_disk(prepared, tmp_path):
    parts = dict(zip(SCORES, fit_scores(list(SCORES), prepared, tmp_path, seed=0), strict=True))
    history = read_history(prepared.events)
    label = prepared.samples.label_readmission.to_numpy()
    for name, part in parts.items():
        model = load_score(tmp_path / "models" / f"{name}-readmission.json")
        assert isinstance(model, ScoreModel) and model.score == name
        points = score_points(name, history, prepared.samples, prepared.dataset.store)
        train = prepared.rows(TRAIN)
        assert model.predict(points[train]).mean() == pytest.approx(np.nanmean(label[train]), abs=1e-4)
        np.testing.assert_array_equal(model.predict(points[part.sample_id]), part.prob)
        assert set(part.model) == {name}


def test_items_do_not_depend_on_the_block_that_a_sample_is_in(prepared, monkeypatch):
    history = read_history(prepared.events)
    whole = score_items(history, prepared.samples, prepared.dataset.store)
    monkeypatch.setattr("ehrdl.data.features.history._SAMPLES_A_BLOCK", 50)
    pd.testing.assert_frame_equal(score_items(history, prepared.samples, prepared.dataset.store), whole)
