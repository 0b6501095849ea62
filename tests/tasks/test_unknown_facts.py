"""A fact that the data lack is no failed rule: it has a word of its own in the flow chart, and drops nobody."""

import pytest

from ehrdl.errors import SchemaError
from ehrdl.tasks.heart_failure import HeartFailure
from ehrdl.tasks.joint import Joint
from ehrdl.tasks.length_of_stay import IcuStays, LengthOfStay
from ehrdl.tasks.mortality import Mortality
from ehrdl.tasks.readmission import Readmission

ICU = {"units": [("Medical ICU", "2150-01-01 10:00")]}
TASKS = {
    "readmission": Readmission,
    "heart_failure": lambda **options: HeartFailure(cohort="all", **options),
    "mortality": lambda **options: Mortality(hours=24, **options),
    "length_of_stay_icu": lambda **options: LengthOfStay(icu=IcuStays("discharge"), **options),
    "length_of_stay_hospital": lambda **options: LengthOfStay(unit="hospital", **options),
    "joint": lambda **options: Joint([HeartFailure(cohort="all", **options), LengthOfStay("hospital", **options)]),
}


def caveats(result) -> dict[str, str]:
    return {step.step: step.caveat for step in result.flow if step.caveat}


def without(hospital, *starts):
    """The hospital without the codes that begin so."""
    hospital.rows = [row for row in hospital.rows if not row[2].startswith(starts)]
    return hospital


@pytest.fixture
def wards(empty_hospital):
    """Four patients, born in 2090 but for the last, whose birth is not known, with a stay of five days each."""
    for subject in (1, 2, 3, 4):
        empty_hospital.patient(subject).stay("2150-01-01 10:00", "2150-01-06 10:00", subject=subject, **ICU)
    empty_hospital.rows = [row for row in empty_hospital.rows if row[:1] + row[2:3] != (4, "MEDS_BIRTH")]
    return empty_hospital


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("min_age", [0, None])
def test_without_a_least_age_unknown_ages_stay_and_are_counted(wards, task, min_age):
    result = wards.labelled(task(min_age=min_age))
    assert sorted(result.samples.subject_id) == [1, 2, 3, 4]
    assert result.samples.group_age_band.tolist() == ["45-64", "45-64", "45-64", "unknown"]
    [*_, step] = [step for step in result.flow if step.step == "age unknown"]
    assert (step.admissions, step.rule) == (4, "1 of unknown age are kept")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_with_a_least_age_unknown_ages_are_left_out_under_their_own_line(wards, task):
    result = wards.labelled(task(min_age=18))
    assert sorted(result.samples.subject_id) == [1, 2, 3]
    counts = {step.step: step.admissions for step in result.flow}
    assert (counts["age unknown"], counts["age"]) == (3, 3)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_where_nobody_has_a_birth_the_message_names_it_and_the_way_out(wards, task):
    without(wards, "MEDS_BIRTH")
    with pytest.raises(SchemaError, match=r"age unknown: no MEDS_BIRTH in the data; task\.min_age: 0 keeps everyone"):
        wards.labelled(task(min_age=18))
    result = wards.labelled(task(min_age=0))
    assert len(result.samples) == 4 and set(result.samples.group_age_band) == {"unknown"}
    assert caveats(result)["age unknown"] == "no MEDS_BIRTH in the data"


def test_known_ages_need_no_line(wards):
    wards.patient(4)
    assert "age unknown" not in wards.label().counts


@pytest.mark.parametrize(
    ("codes", "steps", "says"),
    [
        (("DIAGNOSIS//",), ["psychiatric", "rehabilitation", "cancer", "delivery"], "no diagnosis codes"),
        (("DISCHARGE//",), ["disposition"], "no discharge locations"),
    ],
)
def test_exclusions_without_their_facts_say_so(wards, codes, steps, says):
    without(wards, *codes)
    for subject in (1, 2, 3, 4):
        wards.event(
            subject, "2150-01-06 10:00", "DISCHARGE//UNKNOWN" if says.endswith("locations") else "X", 99 + subject
        )
    said = caveats(wards.label(min_age=0))
    assert [said[f"excluded: {step}"] for step in steps] == [f"cannot be applied: {says}"] * len(steps)


def test_a_hospital_with_every_fact_says_nothing(wards):
    wards.patient(9, dod="2151-01-01")
    assert caveats(wards.label()) == {}


def test_codes_of_another_vocabulary_or_without_a_position_are_not_taken_for_none(empty_hospital):
    empty_hospital.patient().stay("2150-01-01 10:00", "2150-01-06 10:00", codes=("ICD11//BD10",))
    said = caveats(empty_hospital.label())
    assert (
        said["excluded: psychiatric"]
        == said["excluded: delivery"]
        == ("cannot be applied: no codes of ICD-9 or ICD-10")
    )
    empty_hospital.event(1, "2150-01-06 10:00", "DIAGNOSIS//ICD10//F200", 100)
    said = caveats(empty_hospital.label())
    assert said["excluded: psychiatric"] == "cannot be applied: no principal diagnoses (sequence number 1)"
    assert "excluded: delivery" not in said


def test_a_large_share_without_the_facts_is_given_and_a_small_one_is_not(empty_hospital):
    for subject in range(1, 12):
        codes = () if subject == 1 else ("ICD10//I500",)
        empty_hospital.patient(subject).stay("2150-01-01 10:00", "2150-01-06 10:00", subject=subject, codes=codes)
    assert "excluded: delivery" not in caveats(empty_hospital.label())
    empty_hospital.patient(12).stay("2150-01-01 10:00", "2150-01-06 10:00", subject=12, codes=())
    assert caveats(empty_hospital.label())["excluded: delivery"] == "17 % have no diagnosis codes"


def test_planned_returns_and_observation_stays_need_the_type_of_admission(wards):
    result = without(wards, "ADMISSION_TYPE//").label(min_age=0)
    said = caveats(result)
    assert said["inpatient"] == said["outcome: planned"] == "cannot be applied: no admission types"
    assert result.samples.group_observation_admit.isna().all()


def test_an_exception_without_its_facts_says_so(wards):
    said = caveats(without(wards, "SERVICE_IN//", "DIAGNOSIS//").label())
    assert said["excluded: cancer"] == "cannot be applied: no diagnosis codes"
    for subject in (1, 2, 3):
        wards.event(subject, "2150-01-06 10:00", "DIAGNOSIS//ICD10//I500", 99 + subject, 1)
    said = caveats(wards.label())
    assert said["excluded: cancer"] == "its exception cannot be applied: no services"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_data_without_any_death_say_so(wards, task):
    assert caveats(wards.labelled(task(min_age=0)))["alive"] == "cannot be applied: no deaths"


def test_outcomes_that_the_data_cannot_fill_are_named(wards):
    said = caveats(wards.label(min_age=0, death="composite", emergency_return="composite"))
    assert said["outcome: death"] == "cannot be applied: no deaths"
    assert said["outcome: emergency return"] == "cannot be applied: no emergency visits or observation stays"
    said = caveats(wards.labelled(Mortality(hours=24, min_age=0)))
    assert said["outcome"] == "cannot be applied: no deaths"


def test_a_stay_without_a_discharge_is_still_there_and_not_misdated(wards):
    wards.rows = [row for row in wards.rows if not (row[0] == 1 and row[2].startswith("DISCHARGE//"))]
    result = wards.label()
    assert result.counts["still there"] == result.counts["dated"] == (3, 3)
    result = wards.labelled(HeartFailure(cohort="all"))
    assert (result.counts["age"], result.counts["end unknown"]) == ((3, 3), (2, 2))
    result = wards.labelled(LengthOfStay("hospital"))
    assert result.counts["in hospital"] == (3, 3)
    assert caveats(result)["in hospital"] == "33 % have no end in the data"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_admissions_and_discharges_need_not_say_where_from_and_where_to(wards, task):
    before = wards.labelled(task(min_age=0))
    for name in ("ADMISSION", "DISCHARGE"):
        wards.rows = [(*row[:2], name if row[2].startswith(f"{name}//") else row[2], *row[3:]) for row in wards.rows]
    after = wards.labelled(task(min_age=0))
    assert after.samples.prediction_time.tolist() == before.samples.prediction_time.tolist()
    assert [step.admissions for step in after.flow] == [step.admissions for step in before.flow]


def test_where_no_stay_has_a_discharge_the_message_names_it(wards):
    without(wards, "DISCHARGE//")
    with pytest.raises(SchemaError, match="still there: no DISCHARGE event of a stay in the data"):
        wards.label()
    with pytest.raises(SchemaError, match="end unknown: no DISCHARGE event of a stay in the data"):
        wards.labelled(HeartFailure(cohort="all"))


def test_discharges_without_an_admission_are_counted(wards):
    wards.rows = [row for row in wards.rows if not (row[0] == 1 and row[2].startswith("ADMISSION//"))]
    result = wards.label()
    assert result.counts["admissions"] == (3, 3)
    assert caveats(result)["admissions"] == "1 more have a discharge but no admission"
    with pytest.raises(SchemaError, match="admissions: 4 more have a discharge but no admission; no ADMISSION event"):
        without(wards, "ADMISSION//").label()


@pytest.mark.parametrize("task", [Mortality, LengthOfStay])
def test_an_icu_task_names_the_icu_stays_that_are_missing(wards, task):
    with pytest.raises(SchemaError, match="ICU stays: no ICU_IN// event of a hospital stay in the data"):
        without(wards, "ICU_IN//").labelled(task())


def test_an_icu_stay_in_a_unit_without_a_name_is_one(wards):
    wards.rows = [
        (*row[:2], "ICU_IN//UNKNOWN" if row[2].startswith("ICU_IN//") else row[2], *row[3:]) for row in wards.rows
    ]
    for task in (LengthOfStay(icu=IcuStays("discharge", drop_stepdown=True)), LengthOfStay("hospital")):
        result = wards.labelled(task)
        assert set(result.samples.group_care_unit) == {"unknown"}
    said = caveats(wards.labelled(LengthOfStay(icu=IcuStays("discharge", drop_stepdown=True))))
    assert said["no step-down unit"] == "cannot be applied: no names of units"


def test_uncoded_stays_are_named_where_they_count_as_negative(wards):
    wards.rows = [row for row in wards.rows if not (row[0] in (1, 2) and row[2].startswith("DIAGNOSIS//"))]
    said = caveats(wards.labelled(HeartFailure(cohort="all")))
    assert said["outcome"] == "67 % have no diagnosis codes of ICD-9 or ICD-10"


@pytest.mark.parametrize(
    ("codes", "position", "says"),
    [
        ((), "any", "no stay has a DIAGNOSIS code; add"),
        (("ICD11//BD10",), "any", "no stay has a DIAGNOSIS code of ICD-9 or ICD-10"),
        ((), "principal", "no stay has a DIAGNOSIS code; add"),
    ],
)
def test_heart_failure_without_codes_that_it_knows_is_refused(empty_hospital, codes, position, says):
    empty_hospital.patient().stay("2150-01-01 10:00", "2150-01-06 10:00", codes=codes)
    with pytest.raises(SchemaError, match=says):
        empty_hospital.diagnose(position=position)
    empty_hospital.event(1, "2150-01-06 10:00", "DIAGNOSIS//ICD10//I500", 100)
    with pytest.raises(SchemaError, match="no stay has a principal diagnosis"):
        empty_hospital.diagnose(position="principal")


def test_an_unknown_sex_is_a_group_of_its_own(wards):
    result = without(wards, "GENDER//").label()
    assert result.samples.group_sex.isna().all() and len(result.samples) == 3
