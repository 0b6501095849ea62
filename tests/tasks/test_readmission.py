"""One test a rule of the readmission task, on patients made by hand, just inside and just outside each boundary."""

import json
from itertools import pairwise

import pandas as pd
import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import SAMPLES, check
from ehrdl.tasks.readmission import Readmission


@pytest.mark.parametrize(("born", "kept"), [(2132, True), (2133, False)])
def test_age_is_the_difference_of_years(empty_hospital, born, kept):
    hospital = empty_hospital.patient(born=born).patient(2)
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-01 10:00", "2150-01-05 10:00", subject=2)
    result = hospital.label()
    assert result.labels == ({100: 0.0, 101: 0.0} if kept else {101: 0.0})
    assert result.counts["age"] == ((2, 2) if kept else (1, 1))


def test_a_readmission_that_ends_in_death_counts_but_is_no_index(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00")
    result = hospital.stay("2150-01-10 10:00", "2150-01-12 10:00", to="DIED", deathtime="2150-01-12 09:00").label()
    assert result.labels == {100: 1.0}
    assert result.counts["alive"] == (1, 1)


def test_death_in_any_stay_of_the_episode_is_death_in_the_stay(empty_hospital):
    hospital = empty_hospital.patient().patient(2)
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", deathtime="2150-01-05 20:00", to="DIED")
    hospital.stay("2150-01-05 21:00", "2150-01-06 10:00").stay("2150-01-01 10:00", "2150-01-05 10:00", subject=2)
    assert hospital.label().labels == {102: 0.0}


@pytest.mark.parametrize(("dod", "kept"), [("2150-01-05", True), ("2150-01-04", False)])
def test_a_death_dated_before_the_day_of_discharge_excludes(empty_hospital, dod, kept):
    hospital = empty_hospital.patient(dod=dod).patient(2)
    hospital.stay("2150-01-01 10:00", "2150-01-05 00:00").stay("2150-01-01 10:00", "2150-01-05 10:00", subject=2)
    assert (100 in hospital.label().labels) is kept


@pytest.mark.parametrize(
    ("to", "kept"),
    [
        *[("ACUTE HOSPITAL", False), ("AGAINST ADVICE", False), ("HOSPICE", False)],
        *[("UNKNOWN", True), ("PSYCH FACILITY", True), ("SKILLED NURSING FACILITY", True)],
    ],
)
def test_disposition_excludes_the_index_but_not_the_readmission(hospital, to, kept):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-12 10:00", to=to)
    assert hospital.label().labels == ({100: 1.0, 101: 0.0} if kept else {100: 1.0})


def test_hospice_is_kept_on_request(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", to="HOSPICE")
    assert hospital.label(keep_hospice=True).labels == {100: 0.0}


PRINCIPAL = {
    "psychiatric": "ICD10//F200 ICD10//F6999 ICD10//F800 ICD10//F99 ICD10//R45851 "
    "ICD9//29500 ICD9//3029 ICD9//306 ICD9//3149",
    "rehabilitation": "ICD10//Z5189 ICD9//V571",
    "cancer": "ICD10//C000 ICD10//C969 ICD10//Z510 ICD10//Z5111 "
    "ICD9//1400 ICD9//20892 ICD9//20930 ICD9//V580 ICD9//V5811",
    None: "ICD10//F1999 ICD10//F79 ICD9//2949 ICD9//30300 ICD9//3051 ICD9//3159 ICD10//R4585 ICD10//Z5188 "
    "ICD10//D000 ICD9//2100 ICD9//20940 ICD10//Z512 ICD9//V582 ICD9//F200 ICD10//29500",
}


@pytest.mark.parametrize("reason", PRINCIPAL)
def test_principal_diagnosis_excludes(empty_hospital, reason):
    codes = PRINCIPAL[reason].split()
    for subject, code in enumerate(codes):
        empty_hospital.patient(subject)
        empty_hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=(code, "ICD10//I500"), subject=subject)
    n = len(codes)
    result = empty_hospital.patient(n).stay("2150-01-01 10:00", "2150-01-05 10:00", subject=n).label()
    excluded = {step.step for before, step in pairwise(result.flow) if step.admissions < before.admissions}
    assert excluded == ({f"excluded: {reason}"} if reason else set())
    assert len(result.samples) == (1 if reason else n + 1)


def test_a_secondary_psychiatric_diagnosis_does_not_exclude(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=("ICD10//I500", "ICD10//F200"))
    assert hospital.label().labels == {100: 0.0}


def test_the_principal_diagnosis_of_an_episode_is_its_last_stays(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=("ICD10//F200",))
    assert hospital.stay("2150-01-05 12:00", "2150-01-07 10:00").label().labels == {101: 0.0}


def test_cancer_under_a_surgical_service_in_any_stay_of_the_episode_is_kept(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", service="SURG")
    hospital.stay("2150-01-05 12:00", "2150-01-07 10:00", codes=("ICD10//C180",), service="OMED")
    hospital.stay("2150-06-01 10:00", "2150-06-05 10:00", codes=("ICD10//C180",), service="OMED")
    assert hospital.label().labels == {101: 0.0}


@pytest.mark.parametrize("code", ["ICD10//O80", "ICD10//O82", "ICD10//Z370", "ICD9//650", "ICD9//V270"])
def test_a_delivery_in_any_position_of_any_stay_excludes(hospital, code):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=("ICD10//I500", "ICD10//I10", code))
    hospital.stay("2150-01-05 12:00", "2150-01-07 10:00").stay("2150-06-01 10:00", "2150-06-05 10:00")
    result = hospital.label()
    assert result.labels == {102: 0.0}
    assert result.counts["excluded: cancer"] == (2, 1)


def test_a_motorcyclist_is_no_stillbirth(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", codes=("ICD10//I500", "ICD10//V271"))
    assert hospital.label().labels == {100: 0.0}


@pytest.mark.parametrize(("returned", "label"), [("2150-02-04 10:00", 1.0), ("2150-02-04 10:01", 0.0)])
def test_the_horizon_is_thirty_days_to_the_minute(hospital, returned, label):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay(returned, "2150-02-20 10:00")
    assert hospital.label().labels[100] == label


@pytest.mark.parametrize("planned", ["ELECTIVE", "SURGICAL SAME DAY ADMISSION"])
def test_after_a_planned_readmission_later_ones_do_not_count(hospital, planned):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-12 10:00", kind=planned)
    result = hospital.stay("2150-01-20 10:00", "2150-01-22 10:00").label()
    assert result.labels == {100: 0.0, 101: 1.0, 102: 0.0}
    assert result.notes["planned_next"] == 1


def test_an_observation_return_before_an_unplanned_readmission_does_not_hide_it(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00")
    hospital.stay("2150-01-10 10:00", "2150-01-11 10:00", kind="EU OBSERVATION")
    result = hospital.stay("2150-01-20 10:00", "2150-01-22 10:00").label()
    assert result.labels[100] == 1.0
    assert result.notes["emergency_only_return"] == 0


def test_a_readmission_is_an_index_too_and_a_single_admission_is_in(hospital):
    hospital.patient(2).stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-12 10:00")
    hospital.stay("2150-01-20 10:00", "2150-01-22 10:00").stay("2150-01-01 10:00", "2150-01-02 10:00", subject=2)
    result = hospital.label()
    assert result.labels == {100: 1.0, 101: 1.0, 102: 0.0, 103: 0.0}
    assert list(result.notes["prevalence"].values()) == [0.5, 1.0]


def test_the_horizon_is_an_option(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-12 10:00", "2150-01-20 10:00")
    assert (hospital.label(horizon_days=7).labels[100], hospital.label(horizon_days=6.5).labels[100]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("death", "expected"), [("negative", {100: 0.0}), ("composite", {100: 1.0}), ("exclude", {101: 0.0})]
)
def test_death_in_the_horizon_without_readmission(empty_hospital, death, expected):
    hospital = empty_hospital.patient(dod="2150-02-03").patient(2)
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-01 10:00", "2150-01-05 10:00", subject=2)
    result = hospital.label(death=death)
    assert result.labels == {101: 0.0} | expected
    assert result.notes["died_within_horizon"] == 1
    assert result.statuses.get(100) == {"negative": "death", "composite": "positive", "exclude": None}[death]
    if death == "exclude":
        assert (result.flow[-1].step, result.counts["death"]) == ("death", (1, 1))


def test_death_after_the_horizon_is_plain_negative(empty_hospital):
    hospital = empty_hospital.patient(dod="2150-02-05").stay("2150-01-01 10:00", "2150-01-05 10:00")
    assert hospital.label(death="composite").statuses == {100: "negative"}


def test_death_after_a_readmission_is_a_readmission(empty_hospital):
    hospital = empty_hospital.patient(dod="2150-01-20")
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00").stay("2150-01-10 10:00", "2150-01-12 10:00")
    result = hospital.label(death="exclude")
    assert result.statuses == {100: "positive"}
    assert result.notes["died_within_horizon"] == 1  # the readmission itself, as an index


def test_an_emergency_only_return_is_counted_and_on_request_positive(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00")
    hospital.stay("2150-01-10 10:00", "2150-01-11 10:00", kind="EU OBSERVATION")
    result = hospital.label()
    assert (result.statuses, result.notes["emergency_only_return"]) == ({100: "negative"}, 1)
    assert hospital.label(emergency_return="composite").labels == {100: 1.0}


def test_an_emergency_only_return_after_the_horizon_or_a_planned_readmission_does_not_count(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00")
    hospital.stay("2150-01-10 10:00", "2150-01-11 10:00", kind="ELECTIVE")
    hospital.stay("2150-02-10 10:01", "2150-02-11 10:00", kind="EU OBSERVATION")
    assert hospital.label(emergency_return="composite").labels == {100: 0.0, 101: 0.0}


@pytest.mark.parametrize(("year", "status"), [("2152", "positive"), ("2153", "censored")])
def test_an_index_that_may_reach_the_last_year_is_censored_on_request(empty_hospital, year, status):
    # Anchor 2150 is 2014-2016, so an admission of 2153 may be of 2019 and one of 2152 of 2018 at the latest.
    hospital = empty_hospital.patient()
    hospital.stay(f"{year}-01-01 10:00", f"{year}-01-05 10:00").stay("2153-01-20 10:00", "2153-01-22 10:00")
    if year == "2152":
        hospital.stay("2152-01-10 10:00", "2152-01-12 10:00")
    result = hospital.label(censor_last_year=2019)
    assert result.statuses[100] == status
    assert pd.isna(result.labels[100]) == (status == "censored")
    assert result.notes["censored"] == (2 if status == "censored" else 1)
    assert "censored" not in hospital.label().statuses.values()


def test_censoring_without_a_year_group_names_the_subject(empty_hospital):
    hospital = empty_hospital.patient(year_group=None).stay("2150-01-01 10:00", "2150-01-05 10:00")
    with pytest.raises(SchemaError, match=r"task.censor_last_year: subject 1 has no ANCHOR_YEAR_GROUP"):
        hospital.label(censor_last_year=2019)


def test_samples_are_samples(hospital):
    hospital.patient(2).stay("2150-06-01 10:00", "2150-06-05 10:00").stay("2150-01-01 10:00", "2150-01-05 10:00")
    result = hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", subject=2).label()
    check(result.samples.assign(split="train"), SAMPLES)
    assert result.samples["encounter_id"].tolist() == [101, 100, 102]
    assert result.samples["sample_id"].tolist() == [0, 1, 2]
    assert [output.name for output in result.outputs] == ["readmission"]
    assert result.hidden_codes == ()
    json.dumps(result.notes, allow_nan=False)


def test_groups_are_the_index_stays(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", units=[("MICU", "2150-01-02 10:00")])
    hospital.stay(
        "2150-06-01 10:00",
        "2150-06-09 10:00",
        units=[("TSICU", "2150-06-04 10:00"), ("CCU", "2150-06-02 10:00")],
        insurance="Medicaid",
        at_admission={"RACE": "ASIAN - CHINESE", "LANGUAGE": "Klingon"},
    )
    groups = hospital.label().samples.filter(like="group_")
    assert groups.columns.tolist() == [
        f"group_{name}"
        for name in ("sex", "age_band", "race", "insurance", "language", "care_unit", "observation_admit")
    ]
    assert groups.iloc[0].tolist() == ["F", "45-64", "WHITE", "Medicare", "ENGLISH", "MICU", "no"]
    assert groups.iloc[1].tolist() == ["F", "45-64", "ASIAN - CHINESE", "Medicaid", "Klingon", "CCU", "no"]


def test_the_care_unit_of_an_episode_is_its_last_stays(hospital):
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", units=[("MICU", "2150-01-02 10:00")])
    hospital.stay("2150-01-05 12:00", "2150-01-07 10:00")
    assert hospital.label().samples["group_care_unit"].tolist() == ["no ICU"]


@pytest.mark.parametrize("word", ["UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED", "PATIENT DECLINED TO ANSWER", "?"])
def test_words_for_not_known_are_missing(hospital, word):
    at_admission = {"RACE": word, "LANGUAGE": word}
    hospital.stay("2150-01-01 10:00", "2150-01-05 10:00", at_admission=at_admission, insurance=word)
    assert hospital.label().samples[["group_race", "group_language", "group_insurance"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("born", "band"),
    [
        (2132, "18-44"),
        (2106, "18-44"),
        (2105, "45-64"),
        (2085, "65-74"),
        (2076, "65-74"),
        (2066, "75-84"),
        (2065, "85+"),
    ],
)
def test_age_bands(empty_hospital, born, band):
    hospital = empty_hospital.patient(born=born).stay("2150-01-01 10:00", "2150-01-05 10:00")
    assert hospital.label().samples["group_age_band"].tolist() == [band]


def test_summaries_are_counted_by_when_they_were_stored(empty_hospital):
    hospital = empty_hospital
    times = ["2150-01-05 10:00", "2150-01-06 10:00", "2150-01-06 10:01", None]
    for subject, time in enumerate(times, start=1):
        facts = {"summary": time} if time else {}
        hospital.patient(subject).stay("2150-01-01 10:00", "2150-01-05 10:00", subject=subject, **facts)
    expected = {"by dischtime": 0.25, "within 24 h": 0.25, "later": 0.25, "never": 0.25}
    assert hospital.label().notes["summary_stored"] == expected


def test_an_empty_cohort_shows_in_one_line_which_rule_emptied_it(empty_hospital):
    hospital = empty_hospital.patient(born=2140).stay("2150-01-01 10:00", "2150-01-05 10:00")
    with pytest.raises(SchemaError) as error:
        hospital.label()
    message = str(error.value)
    assert "inpatient: 1 after, age: 0 after" in message
    assert "\n" not in message


def test_events_without_admissions_are_an_empty_cohort(hospital):
    with pytest.raises(SchemaError, match="admissions: 0 after"):
        hospital.label()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "tomorrow"}, "task.variant: 'tomorrow' is not one of at_discharge, note_complete"),
        ({"variant": "note_complete", "horizon_days": 1}, "task.horizon_days: 1 is over by task.variant note_complete"),
        ({"death": "ignore"}, "task.death: 'ignore' is not one of negative, exclude, composite"),
        ({"emergency_return": "exclude"}, "task.emergency_return: 'exclude' is not one of negative, composite"),
        ({"horizon_days": 0}, "task.horizon_days: 0 is not above 0"),
        ({"horizon_days": float("nan")}, "task.horizon_days: nan is not finite"),
        ({"horizon_days": 366}, "at most 365"),
        ({"min_age": -1}, "task.min_age: -1 is not between"),
        ({"censor_last_year": 19}, "task.censor_last_year: 19 is not between 1900 and 2100"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Readmission(**options)


@pytest.mark.parametrize(
    "options",
    [{"variant": "note_complete"}, {"horizon_days": 60}, {"death": "composite"}, {"emergency_return": "composite"}],
)
def test_the_simulators_truth_is_that_of_the_primary_definition_alone(options):
    assert Readmission().simulated and not Readmission(**options).simulated
