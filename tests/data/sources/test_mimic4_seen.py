"""What the cells of MIMIC-IV's tables show before a row becomes an event, or does not."""

import pyarrow as pa
import pytest

from ehrdl.sources.mimic4.seen import Seen
from ehrdl.sources.mimic4.tables import TABLES
from ehrdl.sources.raw import RawTable

N = 200
ITEMS = (50912, 50983)
LABS = {
    "subject_id": list(range(N)),
    "itemid": list(ITEMS) * (N // 2),
    "charttime": list(range(N)),
    "valuenum": [float(n) for n in range(N)],
    "valueuom": ["mg/dL"] * N,
}


def found(tmp_path, columns, name="hosp/labevents", parquet=False):
    path = tmp_path / f"table.{'parquet' if parquet else 'csv'}"
    seen = Seen(RawTable(name, path, TABLES[name]), ITEMS)
    for half in (slice(0, N // 2), slice(N // 2, N)):  # two blocks, as they stream by
        seen.add(pa.RecordBatch.from_pydict({column: cells[half] for column, cells in columns.items()}))
    return [(one.column, one.what, one.n, one.is_loud) for one in seen.findings()]


def test_usual_columns_give_nothing(tmp_path):
    assert found(tmp_path, LABS) == []


def test_empty_cells_are_loud_above_what_a_column_may_lack(tmp_path):
    some = [None] * 150 + LABS["valuenum"][150:]
    assert found(tmp_path, LABS | {"valuenum": some}) == [("valuenum", "cells are empty", 150, True)]
    assert found(tmp_path, LABS | {"valuenum": LABS["valuenum"][:100] + [None] * 100}) == []


def test_a_column_that_is_wholly_empty_is_a_note_where_that_may_be(tmp_path):
    assert found(tmp_path, LABS | {"storetime": [None] * N}) == [("storetime", "cells are empty", N, False)]


@pytest.mark.parametrize(("column", "loud"), [("charttime", True), ("valuenum", True), ("gender", False)])
def test_a_column_of_one_value_is_found(tmp_path, column, loud):
    cells = [None, *[5.0] * (N - 1)]
    assert (column, "cells all hold one value", N - 1, loud) in found(tmp_path, LABS | {column: cells})


def test_a_constant_first_block_is_no_constant_column(tmp_path):
    assert found(tmp_path, LABS | {"charttime": [5] * (N // 2) + [6] * (N // 2)}) == []


@pytest.mark.parametrize(("unknown", "loud"), [(60, False), (100, True)])
def test_items_without_a_concept_are_counted_and_loud_where_they_are_many(tmp_path, unknown, loud):
    ids = [1] * unknown + LABS["itemid"][unknown:]
    ((column, what, n, is_loud),) = found(tmp_path, LABS | {"itemid": ids})
    assert (column, n, is_loud) == ("itemid", unknown, loud) and "concepts do not list" in what


def test_a_parquet_table_is_counted_too(mimic):
    for _ in range(120):
        mimic.lab(itemid=1)
    mimic.lab().write(".parquet")
    mimic.read(write=False)
    (unlisted,) = [one for one in mimic.facts["quality"] if one["column"] == "itemid"]
    assert (unlisted["n"], unlisted["of"], unlisted["level"]) == (120, 121, "warning")
    assert {one["column"] for one in mimic.facts["quality"] if "one value" in one["what"]} >= {"charttime", "valuenum"}


def test_cells_without_a_letter_or_digit_are_no_codes(tmp_path):
    codes = {"subject_id": list(range(N)), "icd_code": ["I500", "___"] * (N // 2), "icd_version": [10] * N}
    (one,) = found(tmp_path, codes, "hosp/diagnoses_icd")
    assert one == ("icd_code", "cells hold no letter and no digit, so no code", N // 2, True)


def test_codes_of_a_stay_that_is_not_there_are_counted(mimic):
    for stay in [10] * 20 + [11] * 15:
        mimic.add("hosp/diagnoses_icd", subject_id=1, hadm_id=stay, seq_num=1, icd_code="I500", icd_version=10)
    mimic.read()
    (lost,) = [one for one in mimic.facts["quality"] if one["column"] == "hadm_id"]
    assert (lost["table"], lost["n"], lost["of"], lost["level"]) == ("hosp/diagnoses_icd", 15, 35, "warning")
