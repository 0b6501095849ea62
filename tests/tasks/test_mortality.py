"""One test a rule of the mortality task, on patients made by hand."""

import math

import pandas as pd
import pytest

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import DEATH, SAMPLES, OutputSpec, check
from ehrdl.tasks.mortality import Mortality

ADMIT, T0 = "2150-06-01 10:00", "2150-06-03 10:00"


def icu(hospital, intime, outtime, encounter, unit="MICU"):
    """An ICU stay of a hospital stay; no outtime: it ends with the hospital stay."""
    hospital.event(1, intime, f"ICU_IN//{unit}", encounter)
    return hospital.event(1, outtime, f"ICU_OUT//{unit}", encounter) if outtime else hospital


def deaths(hospital, **options):
    result = hospital.labelled(Mortality(**options))
    check(result.samples.assign(split="train"), SAMPLES)
    return result


def test_it_predicts_death_in_hospital_48_hours_after_icu_admission(hospital):
    icu(hospital.stay("2150-05-30 10:00", "2150-06-10 10:00", to="DIED"), ADMIT, "2150-06-10 10:00", 100)
    result = deaths(hospital)
    assert result.samples.prediction_time.tolist() == [pd.Timestamp(T0)]
    assert (result.labels, result.statuses) == ({100: 1.0}, {100: "positive"})
    assert result.outputs == [OutputSpec("mortality")]
    assert deaths(hospital, hours=24).samples.prediction_time.tolist() == [pd.Timestamp("2150-06-02 10:00")]


def test_who_leaves_the_hospital_alive_is_a_survivor_even_if_death_follows(hospital):
    hospital.patient(1, dod="2150-06-12")
    icu(hospital.stay(ADMIT, "2150-06-10 10:00"), ADMIT, "2150-06-08 10:00", 100)
    assert deaths(hospital).labels == {100: 0.0}


def test_a_death_on_the_ward_after_the_icu_counts(hospital):
    icu(hospital.stay(ADMIT, "2150-06-20 10:00", to="DIED"), ADMIT, "2150-06-05 10:00", 100)
    assert deaths(hospital).labels == {100: 1.0}


def test_who_has_left_or_died_by_t0_is_not_in_the_cohort(hospital):
    icu(hospital.stay(ADMIT, "2150-06-10 10:00"), ADMIT, T0, 100)
    icu(hospital.stay("2150-07-01 10:00", "2150-07-10 10:00"), "2150-07-01 10:00", "2150-07-03 10:01", 101)
    icu(hospital.stay("2150-08-01 10:00", "2150-08-02 10:00", to="DIED"), "2150-08-01 10:00", None, 102)
    result = deaths(hospital)
    assert result.labels == {101: 0.0}
    assert result.counts["ICU stays"] == (3, 1) and result.counts["in the ICU"] == (1, 1)


def test_a_death_is_dated_by_the_death_not_by_a_discharge_that_was_noted_before(hospital):
    stay = hospital.stay(ADMIT, "2150-06-03 00:00", to="DIED", deathtime="2150-06-03 23:00")
    icu(stay, ADMIT, None, 100)
    assert deaths(hospital).labels == {100: 1.0}


@pytest.mark.parametrize(
    ("to", "death", "label"),
    [
        ("", "2150-06-10 08:00", 1.0),
        ("", "2150-06-10 23:59", 1.0),
        ("", "2150-06-11 08:00", 0.0),
        ("HOME", "2150-06-10 08:00", 0.0),
    ],
)
def test_a_death_that_names_no_stay_is_dated_into_it_where_no_death_does(hospital, to, death, label):
    icu(hospital.stay(ADMIT, "2150-06-10 10:00", to=to), ADMIT, None, 100).event(1, death, DEATH)
    assert deaths(hospital).labels == {100: label}


def test_stays_of_patients_of_whom_nothing_is_known_have_no_death(empty_hospital):
    icu(empty_hospital.stay(ADMIT, "2150-06-10 10:00", to=""), ADMIT, None, 100)
    assert deaths(empty_hospital, min_age=0).labels == {100: 0.0}


def test_a_death_that_names_no_stay_is_in_none_where_another_names_one(hospital):
    icu(hospital.stay(ADMIT, "2150-06-10 10:00", to=""), ADMIT, None, 100).event(1, "2150-06-10 08:00", DEATH)
    hospital.patient(2).stay("2150-06-01 10:00", "2150-06-10 10:00", subject=2, to="DIED")
    assert deaths(hospital).labels == {100: 0.0}


def test_a_stay_whose_end_is_not_in_the_data_has_an_unknown_label(hospital):
    hospital.event(1, ADMIT, "ADMISSION//ICU", 100)
    icu(hospital, ADMIT, None, 100)
    result = deaths(hospital)
    assert result.statuses == {100: "censored"} and pd.isna(result.labels[100])
    assert result.notes["end_not_in_the_data"] == 1


def test_only_the_first_icu_stay_counts_unless_all_are_asked_for(hospital):
    hospital.stay("2150-05-30 10:00", "2150-06-20 10:00")
    icu(hospital, ADMIT, "2150-06-04 10:00", 100)
    icu(hospital, "2150-06-08 10:00", "2150-06-12 10:00", 100, "SICU")
    assert deaths(hospital).samples.group_care_unit.tolist() == ["MICU"]
    assert deaths(hospital, first_only=False).samples.group_care_unit.tolist() == ["MICU", "SICU"]


def test_children_are_left_out_and_with_no_age_limit_everyone_is_in(empty_hospital):
    for subject, born in ((1, 2090), (2, 2140), (3, None)):
        if born:
            empty_hospital.patient(subject, born=born)
        empty_hospital.stay(ADMIT, "2150-06-20 10:00", subject=subject)
        empty_hospital.event(subject, ADMIT, "ICU_IN//MICU", 99 + subject)
    assert set(deaths(empty_hospital).labels) == {100}
    assert set(deaths(empty_hospital, min_age=0).labels) == {100, 101, 102}


def test_what_ends_the_stay_is_hidden(hospital):
    icu(hospital.stay(ADMIT, "2150-06-20 10:00"), ADMIT, "2150-06-12 10:00", 100)
    assert deaths(hospital).hidden_codes == ("DISCHARGE//", "ICU_OUT//", DEATH)


def test_a_group_that_the_source_does_not_know_is_no_group(hospital):
    hospital.event(1, ADMIT, "ADMISSION//ICU", 100)
    icu(hospital, ADMIT, None, 100)
    groups = [name for name in deaths(hospital).samples if name.startswith("group_")]
    assert groups == ["group_sex", "group_age_band", "group_care_unit"]


def test_auxiliary_labels_tell_what_came_after_the_stay(hospital):
    for subject, dod in ((1, None), (2, "2150-06-20"), (3, None), (4, "2151-06-01")):
        if subject > 1:
            hospital.patient(subject, dod=dod)
        hospital.stay(ADMIT, "2150-06-10 10:00", to="DIED" if subject == 3 else "HOME", subject=subject)
        hospital.event(subject, ADMIT, "ICU_IN//MICU", 99 + subject)
    hospital.event(1, "2152-06-01 10:00", "ADMISSION//ICU", 104).event(1, "2152-06-01 10:00", "ICU_IN//MICU", 104)
    names = ["death_30d", "death_365d", "death_known", "length_of_stay"]
    result = deaths(hospital, auxiliary=names)
    samples = result.samples.set_index("encounter_id")
    assert result.labels | {104: None} == {100: 0.0, 101: 0.0, 102: 1.0, 103: 0.0, 104: None}
    assert result.outputs == [OutputSpec("mortality")]
    assert [output.name for output in result.auxiliary] == names
    assert [name for name in samples if name.startswith("label_")] == [f"label_{n}" for n in ("mortality", *names)]
    assert samples.label_death_30d.drop(104).tolist() == [0, 1, 1, 0]
    assert samples.label_death_365d.drop(104).tolist() == [0, 1, 1, 1]
    assert samples.label_death_known.drop(104).tolist() == [0, 1, 1, 1]
    assert samples.label_length_of_stay.drop(104).tolist() == pytest.approx([math.log(1 + 7)] * 4)
    assert samples.loc[104].filter(like="label_").isna().all()  # its end is not in the data


@pytest.mark.parametrize("days", [5, 6])
def test_a_death_on_the_last_moment_of_the_days_counts_as_within(hospital, days):
    hospital.stay(ADMIT, "2150-06-08 10:00", to="DIED", deathtime="2150-06-08 10:00")
    hospital.event(1, ADMIT, "ICU_IN//MICU", 100)
    samples = deaths(hospital, auxiliary=["death_4d", f"death_{days}d"]).samples
    assert (samples.label_death_4d.item(), samples[f"label_death_{days}d"].item()) == (0, 1)


def test_an_end_right_behind_the_prediction_time_is_no_length_of_stay(hospital):
    hospital.stay(ADMIT, "2150-06-03 10:01").stay("2150-07-01 10:00", "2150-07-03 12:00")
    for encounter, admit in ((100, ADMIT), (101, "2150-07-01 10:00")):
        hospital.event(1, admit, "ICU_IN//MICU", encounter)
    found = deaths(hospital, auxiliary=["length_of_stay"]).samples.label_length_of_stay
    assert found.isna().tolist() == [True, False] and found[1] == pytest.approx(math.log(1 + 2 / 24))


@pytest.mark.parametrize("names", [["sofa"], ["death_0d"], ["death_30d", "death_30d"]])
def test_an_auxiliary_output_that_cannot_be_is_refused(names):
    with pytest.raises(ConfigError, match=rf"task\.auxiliary: '{names[0]}' "):
        Mortality(auxiliary=names)


@pytest.mark.parametrize("options", [{"hours": 0}, {"hours": 721}, {"min_age": -1}])
def test_a_value_that_cannot_be_is_refused_by_its_key(options):
    with pytest.raises(ConfigError, match=rf"task\.{next(iter(options))}"):
        Mortality(**options)


def test_no_stay_left_says_where_they_went(hospital):
    hospital.stay(ADMIT, "2150-06-20 10:00")
    with pytest.raises(SchemaError, match=r"task\.mortality: no stay is left: admissions: 1 after, ICU stays: 0 after"):
        deaths(hospital)
