import numpy as np
import pandas as pd
import pytest

from ehrdl.data.features.static import STATICS, hours_since_admission, static_features, subject_facts
from ehrdl.schema import HOUR

ADMISSION, DISCHARGE, SODIUM = 0, 1, 2
YEAR, DAY = 365.25 * 24, 24


def features(build, facts, at, subjects=None):
    if subjects is None:
        subjects = pd.DataFrame({"birth": [], "birth_available": [], "sex": []})
    values = static_features(build.samples(at), subjects, build.store(facts))
    assert values.dtype == np.float32
    return pd.DataFrame(values, columns=list(STATICS))


def people(**of_subject):
    frame = pd.DataFrame.from_dict(of_subject, orient="index", columns=["birth", "birth_available", "sex"])
    frame.index = [int(name.removeprefix("s")) for name in frame.index]
    return frame.assign(birth=frame.birth * HOUR, birth_available=frame.birth_available * HOUR)


def test_age_and_sex_are_those_at_the_prediction_time(build):
    subjects = people(s1=(0, 0, "F"), s2=(0, 0, "M"))
    got = features(build, [], [(1, 50 * YEAR), (1, 51 * YEAR), (2, 80 * YEAR)], subjects)
    assert got.age_years.tolist() == [50, 51, 80]
    assert got.sex_female.tolist() == [1, 1, 0]
    assert got[["age_missing", "sex_missing"]].to_numpy().sum() == 0


def test_what_is_unknown_is_0_and_has_its_indicator(build):
    got = features(build, [], [(1, 50 * YEAR), (9, 50 * YEAR)], people(s1=(None, None, None)))
    assert got.age_years.tolist() == [0, 0]
    assert got.age_missing.tolist() == got.sex_missing.tolist() == [1, 1]
    assert got.sex_female.tolist() == [0, 0]
    assert np.isfinite(got.to_numpy()).all()


def test_a_birth_that_becomes_known_later_is_not_seen(build):
    got = features(build, [], [(1, 10), (1, 11)], people(s1=(0, 11, "F")))
    assert got.age_missing.tolist() == [1, 0]


def test_admissions_are_counted_up_to_the_prediction_time(build):
    days = [10, 300, 500, 600]
    facts = [(1, d * DAY, d * DAY, ADMISSION, 1) for d in days] + [(2, 590 * DAY, 590 * DAY, ADMISSION, 1)]
    got = np.expm1(features(build, facts, [(1, 599 * DAY), (1, 600 * DAY), (3, 600 * DAY)]))
    assert got.log_admissions_before.round(4).tolist() == [3, 4, 0]
    assert got.log_admissions_365d.round(4).tolist() == [2, 3, 0]  # days 300 and 500, then 600 too
    assert got.log_admissions_180d.round(4).tolist() == [1, 2, 0]
    assert got.log_days_since_admission.round(3).tolist() == [99, 0, 0]


def test_hours_since_admission_are_those_of_the_static_feature_and_see_no_later_admission(build):
    facts = [(1, d * DAY, d * DAY + 2, ADMISSION, 1) for d in (10, 300)]
    at = [(1, 9 * DAY), (1, 300 * DAY), (1, 300 * DAY + 2), (1, 301 * DAY), (3, 600 * DAY)]
    hours = hours_since_admission(build.samples(at), build.store(facts))
    assert hours.tolist() == [0, 290 * DAY - 2, 0, 22, 0]
    days = np.expm1(features(build, facts, at).log_days_since_admission)
    np.testing.assert_allclose(days * 24, hours, rtol=1e-5)


def test_days_between_stays_run_from_the_discharge_before_to_this_admission(build):
    facts = [(1, 0, 0, ADMISSION, 1), (1, 5 * DAY, 5 * DAY, DISCHARGE, 1), (1, 25 * DAY, 25 * DAY, ADMISSION, 1)]
    facts.append((1, 30 * DAY, 30 * DAY, DISCHARGE, 1))
    got = np.expm1(features(build, facts, [(1, 30 * DAY)]))
    assert got.log_days_between_stays.tolist() == [pytest.approx(20)]
    assert got.log_days_since_admission.tolist() == [pytest.approx(5)]


def test_a_first_stay_is_ten_years_after_any_other(build):
    got = np.expm1(features(build, [(1, 0, 0, ADMISSION, 1)], [(1, 3 * DAY)]))
    assert got.log_days_between_stays.tolist() == [pytest.approx(3650)]


def test_an_admission_counts_from_when_it_could_be_seen(build):
    got = features(build, [(1, 5, 9, ADMISSION, 1), (1, 5, 5, SODIUM, 140)], [(1, 8), (1, 9)])
    assert np.expm1(got.log_admissions_before).round().tolist() == [0, 1]


def test_without_any_birth_or_sex_every_age_and_sex_is_marked_as_missing(build, tmp_path):
    facts = subject_facts(build.events(tmp_path / "events", [(1, 3, "LAB//50912//mg/dL", 1.0, None, 3)]))
    static = features(build, [(1, 0, 0, ADMISSION, 1)], [(1, DAY), (1, 2 * DAY)], facts)
    assert static.age_years.tolist() == static.sex_female.tolist() == [0, 0]
    assert static.age_missing.tolist() == static.sex_missing.tolist() == [1, 1]


def test_birth_and_sex_come_from_events(build, tmp_path):
    rows = [
        (1, None, "GENDER//F", None, None, None),
        (1, -10, "MEDS_BIRTH", None, None, -10),
        (1, -900, "MEDS_BIRTH", None, None, 7),  # a correction, known later: it changes no earlier age
        (1, 5, "GENDER//A", None, None, 5),
        (2, 3, "LAB//50912//mg/dL", 1.0, None, 3),
        (3, None, "GENDER//M", None, None, None),
    ]
    facts = subject_facts(build.events(tmp_path / "events", rows, n_shards=2))
    assert facts.index.tolist() == [1, 3]
    assert facts.sex.tolist() == ["F", "M"]
    assert (facts.birth / HOUR).tolist()[0] == (facts.birth_available / HOUR).tolist()[0] == -10
    assert facts.birth.isna().tolist() == [False, True]
