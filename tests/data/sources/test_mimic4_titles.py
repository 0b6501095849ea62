import pandas as pd
import pytest

from ehrdl.errors import SchemaError
from ehrdl.sources.mimic4.titles import find_titles, read_titles


def titles(root, **rows):
    (root / "hosp").mkdir(exist_ok=True)
    for name, table in rows.items():
        frame = pd.DataFrame(table, columns=["icd_code", "icd_version", "long_title"])
        frame.to_csv(root / "hosp" / f"{name}.csv.gz", index=False)
    return read_titles(find_titles(root))


def test_titles_are_found_by_the_codes_that_events_have(tmp_path):
    found = titles(
        tmp_path,
        d_icd_diagnoses=[("4280 ", 9, "Congestive heart failure, unspecified"), ("i50.9", 10, " Heart failure ")],
        d_icd_procedures=[("0139", 9, "Other incision of brain"), ("0139", 9, None)],
    )
    assert found == {
        "DIAGNOSIS//ICD9//4280": "Congestive heart failure, unspecified",
        "DIAGNOSIS//ICD10//I509": "Heart failure",
        "PROCEDURE//ICD9//0139": "Other incision of brain",
    }


def test_a_hospital_without_titles_has_none(tmp_path):
    assert titles(tmp_path) == {}


def test_a_table_of_titles_without_a_column_is_refused_by_name(tmp_path):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp" / "d_icd_diagnoses.csv").write_text("icd_code,icd_version\n4280,9\n")
    with pytest.raises(SchemaError, match="long_title"):
        read_titles(find_titles(tmp_path))
