"""What becomes of a MEDS dataset's codes, and how long their facts wait."""

from pathlib import Path

import pytest
import yaml

from ehrdl.errors import ConfigError
from ehrdl.sources.meds.codes import DELAYS, CodeRules
from ehrdl.sources.meds.source import Meds

HOUR = 3_600_000_000


def rules(rename=(), notes=(), delays=(), default=168.0):
    return CodeRules(dict(rename), list(notes), dict(delays), default)


def renamed(code, **options):
    return rules(**options).apply([code]).code.tolist()


def hours(code, **options):
    [row] = rules(**options).apply([code]).itertuples()
    return row.delay / HOUR, row.fallback


def test_a_code_without_a_pattern_stays_as_it_is():
    assert renamed("LAB//50912//mg/dL") == ["LAB//50912//mg/dL"]


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", ["ADMISSION//EMERGENCY ROOM", "ADMISSION_TYPE//EW EMER."]),
        ("HOSPITAL_ADMISSION//ELECTIVE//UNK", ["ADMISSION//", "ADMISSION_TYPE//ELECTIVE"]),
        ("SUBJECT_WEIGHT", []),
        ("INFUSION_START//1", ["INPUT_START//1//{unit}"]),
    ],
)
def test_a_pattern_makes_one_code_several_or_none(code, becomes):
    options = {
        r"HOSPITAL_ADMISSION//(.*?)//(?:UNK|(.*))": [r"ADMISSION//\2", r"ADMISSION_TYPE//\1"],
        r"SUBJECT_WEIGHT": [],
        r"INFUSION_START//(\d+)": [r"INPUT_START//\1//{unit}"],
    }
    assert renamed(code, rename=options) == becomes
    assert rules(rename=options).columns == ["unit"]


def test_the_first_pattern_that_matches_the_whole_code_decides():
    options = {"AB": ["part"], "A.*": ["first"], "ABC": ["second"]}
    assert renamed("ABC", rename=options) == ["first"]


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("DIAGNOSIS//ICD10//I50.9", "DIAGNOSIS//ICD10//I509"),
        ("DIAGNOSIS//ICD9//428.0", "DIAGNOSIS//ICD9//4280"),
        ("DIAGNOSIS//ICD10//i50.9 ", "DIAGNOSIS//ICD10//I509"),
        ("PROCEDURE//ICD9//39.95", "PROCEDURE//ICD9//3995"),
        ("LAB//50912//mg/dL.", "LAB//50912//mg/dL."),
    ],
)
def test_icd_codes_are_written_as_the_tasks_compare_them(code, becomes):
    assert renamed(code) == [becomes]


def test_notes_are_known_by_their_old_or_their_new_code():
    options = {"rename": {"X(.*)": [r"Y\1"]}, "notes": ["X1", "Y2", "NOTE.*"]}
    assert renamed("X1", **options) == ["NOTE//Y1"]
    assert renamed("X2", **options) == ["NOTE//Y2"]
    assert renamed("X3", **options) == ["Y3"]
    assert renamed("NOTE//discharge//DS", **options) == ["NOTE//discharge//DS"]


@pytest.mark.parametrize(
    ("code", "delay"),
    [
        ("LAB//50912//mg/dL", 4),  # the rules of mimic4_bedside, mimic4_orders and mimic4_stays without a storetime
        ("CHART//220045//bpm", 1),
        ("CHART//220645//mEq/L", 4),  # a laboratory value that is charted at the time of the draw
        ("OUTPUT//226559//ml", 1),
        ("EMAR//Administered//Heparin", 1),
        ("DRUG_START//Furosemide//IV", 24),
        ("NOTE//discharge//DS", 24),
        ("DIAGNOSIS//ICD10//I509", 168),
        ("PROCEDURE//ICD10//5A09557", 168),
        ("PROCEDURE_START//225792", 1),
        ("DRG//APR//194", 168),
        ("HCPCS//99291", 168),
        ("ADMISSION", 0),
        ("DISCHARGE//HOME", 0),
        ("MEDS_DEATH", 0),
    ],
)
def test_shipped_delays_are_those_of_mimic_without_a_recorded_time(code, delay):
    assert hours(code) == (delay, False)


def test_what_no_pattern_knows_waits_a_week_and_is_counted():
    assert hours("LOINC/2160-0") == (168, True)
    assert hours("LOINC/2160-0", default=2.5) == (2.5, True)


def test_own_delays_come_before_the_shipped_ones_and_their_order_decides():
    assert hours("LAB//1//", delays={"LAB//1//": 2, "LAB//.*": 9}) == (2, False)
    assert hours("LAB//2//", delays={"LAB//1//": 2, "LAB//.*": 9}) == (9, False)
    assert hours("LAB//2//", delays={"LAB//.*": 9, "LAB//2//": 2}) == (9, False)


def test_a_delay_is_found_by_the_old_code_or_the_new_one():
    options = {"rename": {"LAB//RESULT//(.*)": [r"LAB//\1"]}}
    assert hours("LAB//RESULT//1//", **options) == (4, False)
    assert hours("LAB//RESULT//1//", delays={"LAB//RESULT//.*": 0}, **options) == (0, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rename": {"LAB//(": ["x"]}}, r"data.source.rename: 'LAB//\(': 'x' is no regular expression \(missing \)"),
        ({"rename": {"LAB": [r"\1"]}}, r"data.source.rename: 'LAB': .* is no regular expression \(invalid group"),
        ({"notes": ["*"]}, r"data.source.notes: '\*' is no regular expression"),
        ({"delays": {"[": 1}}, r"data.source.delays: '\[' is no regular expression"),
        ({"delays": {"LAB.*": -1}}, r"data.source.delays: 'LAB\.\*': -1 is not at least 0"),
        ({"delays": {"LAB.*": float("nan")}}, r"data.source.delays: 'LAB\.\*': nan is not finite"),
        ({"default_delay_hours": -0.5}, r"data.source.default_delay_hours: -0.5 is not at least 0"),
    ],
)
def test_what_is_no_pattern_or_no_delay_is_refused_by_its_key(options, says):
    with pytest.raises(ConfigError, match=says):
        Meds("dataset", **options)


def test_no_shipped_delay_is_longer_than_the_default():
    assert max(DELAYS.values()) == 168


# ------------------------------------------------------------------------------------------------ MIMIC-IV's export

CONFIG = Path(__file__).parents[3] / "configs" / "readmission_meds.yaml"
#: Codes as MIMIC_IV_MEDS 0.0.3, 0.1.0 and 0.2.0 write them; what they become, and how long they wait [h].
EXPORT = {
    "ED_REGISTRATION": {"ED_IN": 0},
    "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM": {"ADMISSION//EMERGENCY ROOM": 0, "ADMISSION_TYPE//EW EMER.": 24},
    "HOSPITAL_ADMISSION//ELECTIVE//UNK": {"ADMISSION//": 0, "ADMISSION_TYPE//ELECTIVE": 24},
    "HOSPITAL_DISCHARGE//DIED": {"DISCHARGE//DIED": 0},
    "INSURANCE//Other": {"INSURANCE//Other": 24},
    "RACE//WHITE": {"RACE//WHITE": 0},
    "ICU_ADMISSION//Trauma SICU (TSICU)": {"ICU_IN//Trauma SICU (TSICU)": 0},
    "ICU_DISCHARGE//Trauma SICU (TSICU)": {"ICU_OUT//Trauma SICU (TSICU)": 0},
    "TRANSFER_TO//ED//Emergency Department": {"TRANSFER_IN//Emergency Department": 0},
    "TRANSFER_TO//discharge//UNK": {},
    "DIAGNOSIS//ICD//9//4280": {"DIAGNOSIS//ICD9//4280": 168},
    "PROCEDURE//ICD//10//5A09557": {"PROCEDURE//ICD10//5A09557": 168},
    "DRG//APR//194": {"DRG//APR//194": 168},
    "DRG//HCFA//291//HEART FAILURE W MCC": {"DRG//HCFA//291": 168},
    "HCPCS//Hospital observation per hr": {"HCPCS//Hospital observation per hr": 168},
    "LAB//50912//mg/dL": {"LAB//50912//mg/dL": 4},
    "LAB//RESULT//50912//mg/dL": {"LAB//50912//mg/dL": 0},
    "LAB//RESULT//50820//UNK": {"LAB//50820//": 0},
    "LAB//SPECIMEN_COLLECTED//50912//STAT": {"LAB//SPECIMEN_COLLECTED//50912//STAT": 0},
    "LAB//220045//bpm": {"CHART//220045//bpm": 1},
    "LAB//223761//°F": {"CHART//223761//°F": 1},
    "LAB//220645//mEq/L": {},
    "SUBJECT_FLUID_OUTPUT//226559//ml": {"OUTPUT//226559//ml": 1},
    "INFUSION_START//221906": {"INPUT_START//221906//{unit}": 1},
    "INFUSION_END//225158": {"INPUT_END//225158//{unit}": 1},
    "PROCEDURE//START//225792": {"PROCEDURE_START//225792": 1},
    "MEDICATION//START//Furosemide//63323028002": {"DRUG_START//Furosemide//{route}": 24},
    "MEDICATION//START//Sodium Chloride 0.9%  Flush": {"DRUG_START//Sodium Chloride 0.9%  Flush//{route}": 24},
    "MEDICATION//STOP//Heparin//UNK": {"DRUG_STOP//Heparin//{route}": 0},
    "MEDICATION//Docusate Sodium//Not Given//UNK": {"EMAR//Not Given//Docusate Sodium": 1},
    "MEDICATION//Insulin//Administered": {"EMAR//Administered//Insulin": 1},
    "Blood Pressure Sitting": {"OMR//Blood Pressure Sitting": 24},
    "SUBJECT_WEIGHT_AT_INFUSION//KG": {"SUBJECT_WEIGHT_AT_INFUSION//KG": 1},
    "GENDER//F": {"GENDER//F": 0},
    "MEDS_DEATH": {"MEDS_DEATH": 0},
}


@pytest.mark.parametrize("code", EXPORT)
def test_the_shipped_config_makes_our_codes_of_those_of_mimics_export(code):
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]["source"]["init_args"]
    found = Meds(**options).rules.apply([code])
    assert not found.fallback.any()
    assert dict(zip(found.code, found.delay / HOUR, strict=True)) == EXPORT[code]
