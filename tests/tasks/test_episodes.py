"""Which stays are one episode, and which episodes count: on patients made by hand, inside and outside each boundary."""

import numpy as np
import pandas as pd
import pytest


def test_stays_that_overlap_are_one_episode(hospital):
    result = hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-05 10:00", "2150-01-09 10:00").label()
    assert result.labels == {101: 0.0}
    assert result.samples["prediction_time"].tolist() == [pd.Timestamp("2150-01-09 10:00")]


@pytest.mark.parametrize(
    ("returned", "expected"), [("2150-01-05 23:59", {101: 0.0}), ("2150-01-06 00:00", {100: 1.0, 101: 0.0})]
)
def test_a_return_on_the_day_of_discharge_is_the_same_episode(hospital, returned, expected):
    hospital.stay("2150-01-01 10:00", "2150-01-05 00:10").stay(returned, "2150-01-20 10:00")
    assert hospital.label().labels == expected


def test_a_stay_nested_in_a_longer_one_does_not_end_the_episode(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-20 10:00", to="HOME HEALTH CARE")
    hospital.stay("2150-01-03 10:00", "2150-01-04 10:00", to="AGAINST ADVICE")
    hospital.stay("2150-01-20 18:00", "2150-01-25 10:00").stay("2150-02-01 10:00", "2150-02-02 10:00")
    assert hospital.label().labels == {102: 1.0, 103: 0.0}


def test_the_last_stay_is_the_one_that_ends_with_the_episode(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-20 10:00", insurance="Medicaid")
    hospital.stay("2150-01-03 10:00", "2150-01-04 10:00", to="AGAINST ADVICE")
    samples = hospital.label().samples
    assert samples[["encounter_id", "group_insurance"]].values.tolist() == [[100, "Medicaid"]]


def test_merging_equals_a_plain_loop_over_the_stays_in_order(empty_hospital):
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2150-01-01")
    expected = []
    for subject in range(20):
        empty_hospital.patient(subject)
        begins = start + pd.to_timedelta(np.sort(rng.choice(24 * 60, 15, replace=False)), unit="h")
        ends = begins + pd.to_timedelta(rng.integers(1, 24 * 5, 15), unit="h")
        latest = None
        for begin, end in zip(begins, ends, strict=True):
            empty_hospital.stay(str(begin), str(end), subject=subject)
            if latest is not None and (begin <= latest or begin.date() == latest.date()):
                latest = max(latest, end)
                expected[-1] = (subject, latest)
            else:
                latest = end
                expected.append((subject, latest))
    samples = empty_hospital.label().samples
    assert 20 < len(expected) < 300
    assert list(samples[["subject_id", "prediction_time"]].itertuples(index=False, name=None)) == expected


def test_merging_never_crosses_patients(empty_hospital):
    hospital = empty_hospital.patient(1).patient(2)
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-05 12:00", "2150-01-06 10:00", subject=2)
    assert hospital.label().labels == {100: 0.0, 101: 0.0}


def test_a_discharge_not_after_the_admission_is_dropped_and_counted(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-10 10:00")
    result = hospital.stay("2150-03-01 10:00", "2150-03-01 10:01").label()
    assert result.labels == {100: 0.0, 102: 0.0}
    assert (result.counts["admissions"], result.counts["dated"]) == ((3, 1), (2, 1))


def test_the_row_order_of_stays_does_not_matter(hospital):
    hospital.stay("2150-02-01 10:00", "2150-02-05 10:00").stay("2150-01-20 10:00", "2150-01-25 10:00")
    assert hospital.label().labels == {100: 0.0, 101: 1.0}


@pytest.mark.parametrize("kind", ["EU OBSERVATION", "AMBULATORY OBSERVATION", "DIRECT OBSERVATION"])
def test_an_episode_of_observation_alone_is_neither_index_nor_readmission(hospital, kind):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-11 10:00", kind=kind)
    result = hospital.label()
    assert result.labels == {100: 0.0}
    assert (result.counts["episode"], result.counts["inpatient"]) == ((2, 1), (1, 1))


def test_an_episode_with_one_stay_not_for_observation_is_kept_with_that_type(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00")
    hospital.stay("2150-01-10 10:00", "2150-01-11 10:00", kind="EU OBSERVATION")
    hospital.stay("2150-01-11 12:00", "2150-01-14 10:00", kind="ELECTIVE")
    hospital.stay("2150-01-14 12:00", "2150-01-15 10:00", kind="EW EMER.")
    result = hospital.label()
    assert result.labels == {100: 0.0, 103: 0.0}
    assert result.notes["planned_next"] == 1


def test_an_observation_admit_stays_and_is_told_apart(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", kind="OBSERVATION ADMIT")
    result = hospital.stay("2150-01-10 10:00", "2150-01-11 10:00").label()
    assert result.labels == {100: 1.0, 101: 0.0}
    assert result.notes["observation_admit"] == {"n": 1, "with": 0.5, "without": 0.0}


@pytest.mark.parametrize("spelled", [str.lower, str.title, lambda word: f" {word.replace(' ', '  ')}\u00a0"])
def test_words_of_another_source_mean_the_same_however_they_are_written(empty_hospital, spelled):
    hospital = empty_hospital.patient(sex=spelled("F"))
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", kind=spelled("EU OBSERVATION"))
    hospital.stay("2150-02-01 10:00", "2150-02-05 10:00", to=spelled("AGAINST ADVICE"))
    hospital.stay("2150-03-01 10:00", "2150-03-05 10:00", codes=("ICD10//C50",), service=spelled("SURG"))
    hospital.stay("2150-03-20 10:00", "2150-03-25 10:00", kind=spelled("ELECTIVE"), to=spelled("DIED"))
    result = hospital.label()
    assert result.labels == {102: 0.0}
    assert result.samples["group_sex"].tolist() == ["F"]
