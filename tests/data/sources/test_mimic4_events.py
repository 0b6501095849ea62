"""What Mimic4 writes is valid MEDS and the same whatever the file format, the row order and the number of workers."""

import os
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from ehrdl.clinical import concepts
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.events.writer import validate
from ehrdl.sources.mimic4.source import Mimic4

DEMO = Path(os.environ.get("EHRDL_DATA", "../shared/data")) / "mimic-iv-demo-2.2"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}")
TEXT = 'He said "no, never",\n\n"""\nLVEF 45 % — ___ µg\n'


# ------------------------------------------------------------------------------------------------ EVENTS


@pytest.fixture
def full(mimic):
    """Twelve patients with something in every table, ties and nulls included."""
    for subject in range(2, 13):
        stay = 10 * subject
        ids = {"subject_id": subject, "hadm_id": stay}
        mimic.patient(subject, dod="2150-03-01" if subject % 3 == 0 else "").stay(
            subject, stay, race="WHITE", edregtime="2150-01-01 06:00:00"
        )
        mimic.add("hosp/services", **ids, transfertime="2150-01-01 10:00:00", curr_service="MED")
        for number, code in enumerate(("I500", "N179"), 1):
            mimic.add("hosp/diagnoses_icd", **ids, seq_num=number, icd_code=code, icd_version=10)
        mimic.add("icu/icustays", **ids, stay_id=stay, first_careunit="MICU", last_careunit="MICU")
        mimic.change("icu/icustays", intime="2150-01-01 11:00:00", outtime="2150-01-02 11:00:00", los=1.0)
        for value in ("1.5", "1.5", "0.9"):  # two alike, and a third at the same time
            mimic.lab(value=value, **ids).chart(value=value, **ids)
        mimic.drug(**ids, poe_id="7-1").drug(**ids, stoptime="2150-01-03 08:00:00").culture(**ids).infusion(**ids)
        mimic.add("hosp/poe", poe_id="7-1", ordertime="2150-01-02 09:00:00").procedure(**ids)
        mimic.add("hosp/omr", subject_id=subject, chartdate="2150-01-02", result_value="110/70")
        mimic.change("hosp/omr", result_name="Blood Pressure")
        mimic.lab(storetime="", value="NEG", valuenum="", **ids | {"hadm_id": ""})
        mimic.note(**ids, text=TEXT).note(**ids, storetime="", table="radiology", note_type="RR")
    return mimic


def test_events_are_valid_meds_in_total_order_with_a_subject_in_one_shard(full):
    events = full.read()
    counts = validate(events.out)
    repeated = counts.pop("repeated")
    assert counts == {"rows": len(events.frame), "subjects": 12, "codes": events.frame.code.nunique()}
    labs = events.frame[events.frame.code.str.startswith("LAB//")]
    assert repeated["LAB"] == [labs.duplicated().sum(), len(labs)] == [11, 44]


def test_bytes_are_the_same_for_any_number_of_workers_and_any_row_order(full):
    one = full.read().bytes()
    assert full.read(workers=2).bytes() == one
    full.write(shuffled=True)
    assert full.read(write=False).bytes() == one


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet"])
def test_compressed_csv_and_parquet_give_the_same_events(full, suffix, tmp_path):
    one = full.read().bytes()
    full.root = tmp_path / "other"
    full.write(suffix)
    assert full.read(write=False).bytes() == one


STYLES = {
    "upper case": {"header": str.upper},
    "Windows": {"newline": "\r\n"},
    "byte order mark": {"bom": True},
    "padded": {"header": lambda name: f" {name} "},
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_header_and_line_ends_make_no_difference(full, style):
    one = full.read().bytes()
    full.write(**style)
    assert full.read(write=False).bytes() == one


def test_order_of_columns_and_unknown_columns_make_no_difference(full):
    one = full.read().bytes()
    for name, columns in full.columns.items():
        for row in full.rows[name]:
            row['odd "name", here'] = 'a,"b"\nc'
        full.write_table(name, columns=['odd "name", here', *reversed(columns)])
    assert full.read(write=False).bytes() == one


def test_ids_that_pandas_wrote_as_fractions_are_the_same_ids(full):
    one = full.read().bytes()
    for row in full.rows["hosp/labevents"]:
        row["hadm_id"] = f"{row['hadm_id']}.0" if row["hadm_id"] else ""
    assert full.read().bytes() == one


def test_description_of_a_code_is_its_label(full):
    codes = pd.read_parquet(full.read().out / "metadata" / "codes.parquet").set_index("code")
    assert codes.description["LAB//50912//mg/dL"] == "Creatinine"


# ------------------------------------------------------------------------------------------------ the options


def test_tables_that_are_not_wanted_are_not_read(mimic):
    mimic.lab().chart()
    assert mimic.read(tables=["hosp/labevents"]).codes("CHART//") == []
    assert set(mimic.facts["tables"]) == {"hosp.admissions", "hosp.patients", "hosp.labevents"}
    mimic.read(tables=[])
    assert set(mimic.facts["tables"]) == {"hosp.admissions", "hosp.patients"}


def test_own_concepts_choose_the_items_and_may_name_none_of_a_table(mimic, tmp_path):
    header = Path(concepts.__file__).with_name("concepts.csv").read_text(encoding="utf-8").splitlines()[0]
    own = tmp_path / "own.csv"
    own.write_text(f"{header}\nLAB//1,mg,odd,numeric,lab,mg,1,0,0,9,Odd,ehrdl\n", encoding="utf-8")
    mimic.lab(itemid=1, valueuom="mg").lab().chart()
    events = mimic.read(concepts=str(own))
    assert events.codes("LAB//") + events.codes("CHART//") == ["LAB//1//mg"]
    own.write_text(own.read_text(encoding="utf-8").replace("LAB//1", "LAB//x"), encoding="utf-8")
    with pytest.raises(SchemaError, match="item id 'x' is not a whole number"):
        mimic.read(concepts=str(own))


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_coding_lag_that_would_leak_is_refused(days):
    with pytest.raises(ConfigError, match=r"data\.source\.coding_lag_days: .*(codes would leak|is not finite)"):
        Mimic4(".", coding_lag_days=days)


def test_table_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"data\.source\.tables: 'hosp/labs' is not one of hosp/patients, "):
        Mimic4(".", tables=["hosp/labs"])


def test_fingerprint_follows_the_files_and_the_options_but_not_the_place(mimic, tmp_path):
    source = Mimic4(str(mimic.write()))
    one = source.fingerprint()
    mimic.root.rename(tmp_path / "moved")
    assert Mimic4(str(tmp_path / "moved")).fingerprint() == one
    assert Mimic4(str(tmp_path / "moved"), coding_lag_days=3).fingerprint() != one
    assert Mimic4(str(tmp_path / "moved"), tables=[]).fingerprint() != one


# ------------------------------------------------------------------------------------------------ the demo

#: What of patients and admissions the demo's counts are not checked for.
STATIC = ("GENDER", "ANCHOR_YEAR_GROUP", "RACE", "LANGUAGE", "MARITAL_STATUS", "ADMISSION_TYPE", "INSURANCE", "ED_OUT")


@needs_demo
def test_demo_counts_equal_an_independent_sql(tmp_path):
    Mimic4(str(DEMO)).read(tmp_path / "events", Prepare(cache=str(tmp_path / "tables")))
    validate(tmp_path / "events")
    known = concepts.load()
    codes = pd.concat([pd.read_parquet(file, columns=["code"]) for file in (tmp_path / "events/data").iterdir()]).code
    kinds = codes.str.split("//").str[0].value_counts()

    def listed(table, prefix, categories=None):
        picked = known.frame[known.frame.base_code.str.startswith(prefix)]
        picked = picked if categories is None else picked[picked.category.isin(categories)]
        return f"{table} WHERE itemid IN ({', '.join(sorted(set(picked.base_code.str.split('//').str[1])))})"

    def kept(table, prefix, categories):
        told = " OR ".join(
            f"CAST({column} AS VARCHAR) <> '___'"
            for column in ("value", *(["comments"] if "lab" in categories else []))
        )
        return f"{listed(table, prefix, categories)} AND (valuenum IS NOT NULL OR {told})"

    expected = {
        "ADMISSION": "hosp/admissions",
        "DISCHARGE": "hosp/admissions",
        "ED_IN": "hosp/admissions WHERE edregtime IS NOT NULL",
        "MEDS_BIRTH": "hosp/patients",
        "MEDS_DEATH": "hosp/patients WHERE dod IS NOT NULL",
        "ICU_IN": "icu/icustays",
        "ICU_OUT": "icu/icustays",
        "SERVICE_IN": "hosp/services",
        "DIAGNOSIS": "hosp/diagnoses_icd",
        "LAB": kept("hosp/labevents", "LAB//", ["lab", "vital"]),
        "CHART": kept("icu/chartevents", "CHART//", ["vital", "procedure"]),
        "TRANSFER_IN": "hosp/transfers WHERE eventtype <> 'discharge'",
        "TRANSFER_OUT": "hosp/transfers WHERE outtime IS NOT NULL",
        "PROCEDURE": "hosp/procedures_icd",
        "DRG": "hosp/drgcodes",
        "HCPCS": "hosp/hcpcsevents",
        "MICRO_RESULT": "hosp/microbiologyevents",
        "DRUG_START": "hosp/prescriptions",
        "DRUG_STOP": "hosp/prescriptions WHERE stoptime >= starttime",
        "EMAR": "hosp/emar",
        "INPUT_START": "icu/inputevents",
        "INPUT_END": "icu/inputevents",
        "OUTPUT": listed("icu/outputevents", "OUTPUT//"),
        "PROCEDURE_START": listed("icu/procedureevents", "PROCEDURE_"),
        "PROCEDURE_END": listed("icu/procedureevents", "PROCEDURE_"),
    }
    counted = {
        "MICRO_TAKEN": "count(DISTINCT micro_specimen_id) FROM '{}/hosp/microbiologyevents.csv.gz'",
        "OMR": "sum(1 + (result_value LIKE '%/%')::INT) FROM '{}/hosp/omr.csv.gz'",
    }
    with duckdb.connect() as con:
        for kind, what in expected.items():
            table, _, where = what.partition(" ")
            rows = con.execute(f"SELECT count(*) FROM '{DEMO}/{table}.csv.gz' {where}").fetchall()
            assert kinds[kind] == rows[0][0], kind
        for kind, what in counted.items():
            assert kinds[kind] == con.execute(f"SELECT {what.format(DEMO)}").fetchall()[0][0], kind
    assert set(kinds.index) == {*expected, *counted, *STATIC}


@needs_demo
def test_orders_of_the_demo_are_seen_no_sooner_than_an_independent_join_says(tmp_path):
    Mimic4(str(DEMO), tables=["hosp/prescriptions"]).read(tmp_path / "events", Prepare(cache=str(tmp_path / "tables")))
    with duckdb.connect(config={"threads": 1}) as con:
        expected = con.execute(
            f"""SELECT p.subject_id, p.starttime, greatest(p.starttime, o.ordertime, CASE WHEN o.ordertime IS NULL
                    THEN coalesce(h.entertime, date_trunc('day', p.starttime) + INTERVAL 86399999999 MICROSECOND) END)
                FROM '{DEMO}/hosp/prescriptions.csv.gz' p
                LEFT JOIN '{DEMO}/hosp/poe.csv.gz' o USING (poe_id)
                LEFT JOIN '{DEMO}/hosp/pharmacy.csv.gz' h ON h.pharmacy_id = p.pharmacy_id ORDER BY ALL"""
        ).fetchall()
        found = con.execute(
            f"""SELECT subject_id, time, available_time FROM '{tmp_path}/events/data/*.parquet'
                WHERE code LIKE 'DRUG_START//%' ORDER BY ALL"""
        ).fetchall()
    assert found == expected
    assert sum(available > time for _, time, available in found) > 1000
