"""Code sets: each boundary just in and just out, the version always part of the match, and SQL equal to Python."""

import os
import re
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from ehrdl.clinical import codes
from ehrdl.clinical.codes import (
    CANCER_TREATMENT,
    DELIVERY,
    END_STAGE_KIDNEY,
    HEART_FAILURE,
    PSYCHIATRIC,
    REHABILITATION,
    matches,
)
from ehrdl.errors import SchemaError

DEMO = Path(os.environ.get("EHRDL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mimic-iv-demo-2.2"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
SETS = [PSYCHIATRIC, REHABILITATION, CANCER_TREATMENT, DELIVERY, HEART_FAILURE, END_STAGE_KIDNEY]

IN = {
    (PSYCHIATRIC, 9): "29500 2989 3029 30650 314 31401",
    (PSYCHIATRIC, 10): "F200 F329 F53 F699 F800 F99 R45851",
    (REHABILITATION, 9): "V570 V5789",
    (REHABILITATION, 10): "Z5189",
    (CANCER_TREATMENT, 9): "1400 1749 20800 20892 20900 20936 V580 V5811 V5812",
    (CANCER_TREATMENT, 10): "C000 C4A9 C7A1 C7B8 C801 C969 Z510 Z5111 Z5112",
    (DELIVERY, 9): "650 V270 V271",
    (DELIVERY, 10): "O80 O82 Z370",
    (HEART_FAILURE, 9): "4280 42833 4289 39891 40201 40211 40291 40401 40403 40411 40413 40491 40493",
    (HEART_FAILURE, 10): "I50 I501 I5033 I509 I0981 I110 I130 I132",
    (END_STAGE_KIDNEY, 9): "5856 V4511 V4512 V420",
    (END_STAGE_KIDNEY, 10): "N186 Z992 Z940",
}
OUT = {
    (PSYCHIATRIC, 9): "2949 29410 3030 3059 3150 V271",
    (PSYCHIATRIC, 10): "F1920 F1999 F70 F79 R4585 R45850 G20 F F6",
    (REHABILITATION, 9): "V569 V582",
    (REHABILITATION, 10): "Z5181 Z518 Z519",
    (CANCER_TREATMENT, 9): "1398 2094 20940 2100 V582 V572 20 209",
    (CANCER_TREATMENT, 10): "B999 D000 C970 Z512 Z5189 Z5 C",
    (DELIVERY, 9): "6499 65100 V260 V28 O80",
    (DELIVERY, 10): "O79 O81 O83 Z36 Z38 650 V27",
    (HEART_FAILURE, 9): "4279 4290 3989 39890 40200 40210 40290 40400 40402 40410 40412 40490 40492 4019 I509",
    (HEART_FAILURE, 10): "I49 I5 I51 I510 I0989 I0980 I119 I11 I129 I1310 I1311 I131 I12 I15 4280",
    (END_STAGE_KIDNEY, 9): "5855 5859 585 V450 V4589 V421 N186",
    (END_STAGE_KIDNEY, 10): "N185 N189 N18 Z99 Z9981 Z991 Z941 Z9489 5856",
}


@pytest.mark.parametrize(("key", "inside"), IN.items(), ids=lambda value: str(value)[:40])
def test_codes_just_inside_a_boundary_match(key, inside):
    assert [code for code in inside.split() if not matches(*key, code)] == []


@pytest.mark.parametrize(("key", "outside"), OUT.items(), ids=lambda value: str(value)[:40])
def test_codes_just_outside_a_boundary_do_not_match(key, outside):
    assert [code for code in outside.split() if matches(*key, code)] == []


def test_v271_is_a_stillbirth_in_icd9_and_a_motorcyclist_in_icd10():
    assert matches(DELIVERY, 9, "V271")
    assert not matches(DELIVERY, 10, "V271")


def test_a_version_that_is_neither_9_nor_10_is_refused():
    with pytest.raises(SchemaError, match="icd_version: 11 is neither 9 nor 10"):
        matches(DELIVERY, 11, "O80")


def events_of(listed: dict[tuple[codes.CodeSet, int], str], code_set: codes.CodeSet) -> list[str]:
    return [
        f"DIAGNOSIS//ICD{version}//{code}"
        for (named, version), text in listed.items()
        if named is code_set
        for code in text.split()
    ]


def in_sql(code_set: codes.CodeSet, rows: pd.DataFrame) -> list[str]:
    with duckdb.connect() as con:
        con.register("events", rows)
        return [row[0] for row in con.execute(f"SELECT code FROM events WHERE {codes.sql(code_set)}").fetchall()]


@pytest.mark.parametrize("code_set", SETS, ids=lambda code_set: code_set.name)
def test_sql_reads_the_version_from_the_code(code_set):
    inside, outside = (events_of(listed, code_set) for listed in (IN, OUT))
    others = ["LAB//650//", "ADMISSION//V27", "V27", None]
    assert in_sql(code_set, pd.DataFrame({"code": inside + outside + others})) == inside


@needs_demo
@pytest.mark.parametrize(
    ("code_set", "icd9", "icd10"),
    [
        (PSYCHIATRIC, r"29[5-9]|30[0-2]|30[6-9]|31[0-4]", r"F[2-6]|F[89]|R45851"),
        (REHABILITATION, r"V57", r"Z5189"),
        (CANCER_TREATMENT, r"1[4-9]|20[0-8]|209[0-3]|V58[01]", r"C[0-8]|C9[0-6]|Z51[01]"),
        (DELIVERY, r"650|V27", r"O8[02]|Z37"),
        (HEART_FAILURE, r"428|402[019]1|404[019][13]|39891", r"I50|I110|I13[02]|I0981"),
        (END_STAGE_KIDNEY, r"5856|V451|V420", r"N186|Z992|Z940"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_sets_hold_the_codes_of_the_dictionary_that_a_pattern_written_by_hand_holds(code_set, icd9, icd10):
    entries = pd.read_csv(DEMO / "hosp/d_icd_diagnoses.csv.gz", dtype="str", usecols=["icd_code", "icd_version"])
    entries["code"] = "DIAGNOSIS//ICD" + entries.icd_version + "//" + entries.icd_code.str.strip()
    pattern = re.compile(f"DIAGNOSIS//(ICD9//({icd9})|ICD10//({icd10}))")
    expected = [code for code in entries.code if pattern.match(code)]
    assert expected
    assert sorted(in_sql(code_set, entries)) == sorted(expected)
    keyed = zip(entries.icd_version.astype(int), entries.icd_code.str.strip(), entries.code, strict=True)
    assert [code for version, icd, code in keyed if matches(code_set, version, icd)] == expected


@needs_demo
def test_administrative_values_occur_in_the_demo():
    services = set(pd.read_csv(DEMO / "hosp/services.csv.gz").curr_service)
    assert services - set(codes.SURGICAL_SERVICES) == {"CMED", "MED", "NMED", "OMED", "PSYCH"}
    types = set(pd.read_csv(DEMO / "hosp/admissions.csv.gz").admission_type)
    assert set(codes.PLANNED_ADMISSIONS + codes.OBSERVATION_ADMISSIONS) <= types
