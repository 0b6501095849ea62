"""A large hospital of random rows in MIMIC-IV's layout and proportions, to measure with; its facts mean nothing.

Rows a table stand to each other as in MIMIC-IV 3.1 (158 M lab and 433 M chart rows of about 760 M), and a note is as
long as one there. Of the lab rows half, of the chart rows three in ten are of items that concepts.csv keeps.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import csv

from ehrdl.clinical import concepts
from ehrdl.engine.files import read_json, write_json
from ehrdl.engine.messages import progress
from ehrdl.simulator import phrases as synthetic_phrases

#: Rows a thousand rows of all tables, after the row counts of MIMIC-IV 3.1 and MIMIC-IV-Note 2.2.
SHARES = {
    "hosp/patients": 0.5,
    "hosp/admissions": 0.7,
    "hosp/transfers": 3,
    "hosp/diagnoses_icd": 8.4,
    "hosp/labevents": 208,
    "hosp/microbiologyevents": 5,
    "hosp/poe": 68,
    "hosp/pharmacy": 23,
    "hosp/prescriptions": 27,
    "hosp/emar": 56,
    "hosp/omr": 10,
    "icu/icustays": 0.1,
    "icu/chartevents": 568,
    "icu/inputevents": 14,
    "icu/outputevents": 7,
    "icu/procedureevents": 1,
    "note/discharge": 0.4,
    "note/radiology": 3,
}
KEPT_LABS, KEPT_CHARTS = 50, 30  # percent of rows
WORDS = {"note/discharge": 1600, "note/radiology": 220}
_ROWS_A_BLOCK = 122_880
#: A query holds all its notes at once.
_ROWS_A_QUERY, _NOTES_A_QUERY = 2_000_000, 5_000
#: A note is words of the synthetic hospital's notes, the frequent ones more often, in lines of 12.
_TEXT = """(
    SELECT string_agg(
        words[CAST(1 + floor({n_known} * pow(hash(h, w) / 18446744073709551616.0, 3)) AS BIGINT)]
        || CASE WHEN w % 12 = 0 THEN '.\n' ELSE ' ' END, '' ORDER BY w)
    FROM vocabulary, range({n_words}) words_of_note(w))"""

# Row i of n belongs to subject number i * S // n, so files are ordered by subject, as MIMIC's are. A stay lasts
# 10 days.
_ROWS = """
    SELECT i, 10000000 + subject AS subject_id, 20000000 + stay AS hadm_id, CAST(hash(i, {salt}) >> 1 AS BIGINT) AS h,
        TIMESTAMP '2150-01-01' + to_days(CAST(stay % 20 * 40 + subject % 1000 AS INT)) AS admittime,
        admittime + to_seconds(60.0 * CAST(hash(i, {salt}, 1) % 14400 AS INT)) AS moment
    FROM (SELECT i, i * {subjects} // {n} AS subject, i * {stays} // {n} AS stay
        FROM range({first}, {stop}) AS r(i))
"""
_STORED = "moment + to_seconds(60.0 * CAST(h % 150 AS INT) + 47) AS storetime"
_VALUED = """SELECT *, item.low + (item.high - item.low) * (h % 1000) / 1000.0 AS value
    FROM (SELECT *, {items} AS item FROM rows)"""
_SQL = {
    "hosp/patients": """SELECT subject_id, ['F', 'M'][1 + h % 2] AS gender, 20 + h % 70 AS anchor_age,
        2150 AS anchor_year, '2014 - 2016' AS anchor_year_group, NULL AS dod FROM rows""",
    "hosp/admissions": """SELECT subject_id, hadm_id, admittime, admittime + INTERVAL 10 DAY AS dischtime,
        NULL AS deathtime, 'EW EMER.' AS admission_type, 'P' || h % 999 AS admit_provider_id,
        'EMERGENCY ROOM' AS admission_location, 'HOME' AS discharge_location, 'Medicare' AS insurance,
        'English' AS language, 'SINGLE' AS marital_status, 'WHITE' AS race, NULL AS edregtime, NULL AS edouttime,
        0 AS hospital_expire_flag FROM rows""",
    "hosp/transfers": """SELECT subject_id, hadm_id, i AS transfer_id, 'transfer' AS eventtype, 'Medicine' AS careunit,
        moment AS intime, moment + INTERVAL 1 DAY AS outtime FROM rows""",
    "hosp/diagnoses_icd": """SELECT subject_id, hadm_id, 1 + i % 12 AS seq_num, 'I' || h % 9999 AS icd_code,
        10 AS icd_version FROM rows""",
    "hosp/labevents": """SELECT i AS labevent_id, subject_id, hadm_id, h % 99999999 AS specimen_id, item.id AS itemid,
        'P' || h % 9999 || 'AB' AS order_provider_id, moment AS charttime, {stored},
        round(value, 1) AS value, round(value, 1) AS valuenum, item.unit AS valueuom, 0.4 AS ref_range_lower,
        1.1 AS ref_range_upper, CASE WHEN h % 3 = 0 THEN 'abnormal' END AS flag, ['ROUTINE', 'STAT'][1 + h % 2]
        AS priority, CASE WHEN h % 4 = 0 THEN '___' END AS comments FROM valued""",
    "hosp/microbiologyevents": """SELECT i AS microevent_id, subject_id, hadm_id, h % 999999 AS micro_specimen_id,
        'P1' AS order_provider_id, date_trunc('day', moment) AS chartdate, moment AS charttime, 70012 AS spec_itemid,
        'BLOOD CULTURE' AS spec_type_desc, 1 AS test_seq, date_trunc('day', moment) AS storedate, {stored}, 90201 AS
        test_itemid, 'Blood Culture' AS test_name, NULL AS org_itemid, NULL AS org_name, NULL AS isolate_num,
        NULL AS quantity, NULL AS ab_itemid, NULL AS ab_name, NULL AS dilution_text, NULL AS dilution_comparison,
        NULL AS dilution_value, NULL AS interpretation, 'NO GROWTH.' AS comments FROM rows""",
    "hosp/poe": """SELECT subject_id || '-' || i AS poe_id, i % 400 AS poe_seq, subject_id, hadm_id,
        moment AS ordertime,
        'Medications' AS order_type, NULL AS order_subtype, 'New' AS transaction_type, NULL AS
        discontinue_of_poe_id, NULL AS discontinued_by_poe_id, 'P' || h % 999 AS order_provider_id,
        'Inactive' AS order_status FROM rows""",
    "hosp/pharmacy": """SELECT subject_id, hadm_id, i AS pharmacy_id, subject_id || '-' || i AS poe_id,
        moment AS starttime, moment + INTERVAL 2 DAY AS stoptime, 'drug ' || h % 900 AS medication,
        'Unit Dose' AS proc_type, 'Discontinued' AS status, moment AS entertime, moment AS verifiedtime, 'PO' AS route,
        'BID' AS frequency, NULL AS disp_sched,
        NULL AS infusion_type, NULL AS sliding_scale, NULL AS lockout_interval, NULL AS basal_rate, NULL AS
        one_hr_max, NULL AS doses_per_24_hrs, NULL AS duration, NULL AS duration_interval, NULL AS expiration_value,
        NULL AS expiration_unit, NULL AS expirationdate, NULL AS dispensation, NULL AS fill_quantity FROM rows""",
    "hosp/prescriptions": """SELECT subject_id, hadm_id, i AS pharmacy_id, subject_id || '-' || i AS poe_id,
        i % 400 AS poe_seq, 'P' || h % 999 AS order_provider_id, moment AS starttime,
        moment + INTERVAL 2 DAY AS stoptime, 'MAIN' AS drug_type, 'drug ' || h % 900 AS drug,
        NULL AS formulary_drug_cd, '00' || h % 99999 AS gsn, '0' AS
        ndc, '40mg Tablet' AS prod_strength, NULL AS form_rx, 40 AS dose_val_rx, 'mg' AS dose_unit_rx, 1 AS
        form_val_disp, 'TAB' AS form_unit_disp, 2 AS doses_per_24_hrs, 'PO' AS route FROM rows""",
    "hosp/emar": """SELECT subject_id, hadm_id, subject_id || '-' || i AS emar_id, i % 900 AS emar_seq,
        subject_id || '-' || i AS poe_id, i AS pharmacy_id, 'P' || h % 999 AS enter_provider_id, moment AS charttime,
        'drug ' || h % 900 AS medication, 'Administered' AS event_txt, moment AS scheduletime, {stored} FROM rows""",
    "hosp/omr": """SELECT subject_id, date_trunc('day', moment) AS chartdate, 1 AS seq_num,
        'Blood Pressure' AS result_name, 90 + h % 80 || '/' || 50 + h % 40 AS result_value FROM rows""",
    "icu/icustays": """SELECT subject_id, hadm_id, 30000000 + i AS stay_id, 'MICU' AS first_careunit, 'MICU' AS
        last_careunit, admittime AS intime, admittime + INTERVAL 3 DAY AS outtime, 3 AS los FROM rows""",
    "icu/chartevents": """SELECT subject_id, hadm_id, 30000000 + hadm_id AS stay_id, h % 99999 AS caregiver_id,
        moment AS charttime, {stored}, item.id AS itemid, round(value, 1) AS value, round(value, 1) AS
        valuenum, item.unit AS valueuom, 0 AS warning FROM valued""",
    "icu/inputevents": """SELECT subject_id, hadm_id, 30000000 + hadm_id AS stay_id, h % 99999 AS caregiver_id,
        moment AS starttime, moment + INTERVAL 3 HOUR AS endtime, {stored}, 225158 AS itemid,
        100 AS amount, 'mL' AS amountuom,
        33.3 AS rate, 'mL/hour' AS rateuom, i AS orderid, i AS linkorderid, '02-Fluids (Crystalloids)' AS
        ordercategoryname, NULL AS secondaryordercategoryname, 'Main' AS ordercomponenttypedescription, 'Continuous' AS
        ordercategorydescription, 80 AS patientweight, 100 AS totalamount, 'ml' AS totalamountuom, 0 AS isopenbag, 0 AS
        continueinnextdept, 'FinishedRunning' AS statusdescription, 100 AS originalamount, 33.3 AS originalrate
        FROM rows""",
    "icu/outputevents": """SELECT subject_id, hadm_id, 30000000 + hadm_id AS stay_id, h % 99999 AS caregiver_id,
        moment AS charttime, {stored}, 226559 AS itemid, h % 400 AS value, 'mL' AS valueuom FROM rows""",
    "icu/procedureevents": """SELECT subject_id, hadm_id, 30000000 + hadm_id AS stay_id, h % 99999 AS caregiver_id,
        moment AS starttime, moment + INTERVAL 3 HOUR AS endtime, {stored}, 225792 AS itemid,
        180 AS value, 'min' AS valueuom,
        'FinishedRunning' AS statusdescription FROM rows""",
    "note/discharge": """SELECT subject_id || '-DS-' || i AS note_id, subject_id, hadm_id, 'DS' AS note_type, 1 AS
        note_seq, admittime + INTERVAL 10 DAY AS charttime, admittime + INTERVAL 11 DAY AS storetime, {text} AS text
        FROM rows""",
    "note/radiology": """SELECT subject_id || '-RR-' || i AS note_id, subject_id, hadm_id, 'RR' AS note_type, 1 AS
        note_seq, moment AS charttime, {stored}, {text} AS text FROM rows""",
}


@dataclass(frozen=True)
class Hospital:
    """What was written: raw rows of all tables, and bytes of all files."""

    rows: int
    bytes: int


def write(root: Path, n_rows: int) -> Hospital:
    """Write a hospital of about `n_rows` rows of all tables under `root`, as csv.gz; the same each time.

    One of that size that stands there already is left as it is.
    """
    done = root / "hospital.json"
    if done.is_file() and (found := read_json(done))["asked"] == n_rows:
        return Hospital(found["rows"], found["bytes"])
    counts = {name: max(1, round(share * n_rows / 1000)) for name, share in SHARES.items()}
    known = concepts.load()
    items = {
        "hosp/labevents": _items(known, "LAB//", KEPT_LABS, 59_000),
        "icu/chartevents": _items(known, "CHART//", KEPT_CHARTS, 239_000),
    }
    size = 0
    with duckdb.connect(config={"memory_limit": "2GB"}) as con, progress() as bar:
        words = _vocabulary()
        con.execute("CREATE TABLE vocabulary AS SELECT $1 AS words", [words])
        for salt, name in enumerate(bar.track(list(SHARES), description="write hospital")):
            path = root / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            subjects, stays = counts["hosp/patients"], counts["hosp/admissions"]
            sql = _SQL[name].format(stored=_STORED, text=_TEXT.format(n_known=len(words), n_words=WORDS.get(name, 0)))
            valued = _VALUED.format(items=items[name]) if name in items else "FROM rows"
            queries = [
                f"WITH rows AS ({_ROWS.format(salt=salt, subjects=subjects, stays=stays, n=counts[name], **part)}), "
                f"valued AS ({valued}) {sql}"
                for part in _parts(counts[name], _NOTES_A_QUERY if name in WORDS else _ROWS_A_QUERY)
            ]
            _write_csv(con, queries, path, quoted=name in WORDS)
            size += path.stat().st_size
    written = Hospital(sum(counts.values()), size)
    write_json(done, {"asked": n_rows} | asdict(written))
    return written


def _vocabulary() -> list[str]:
    """The words of the synthetic hospital's notes, the most frequent first."""
    text = Path(synthetic_phrases.__file__).read_text(encoding="utf-8")
    return [word for word, _ in Counter(re.findall(r"[A-Za-z'-]{2,}", text)).most_common()]


def _parts(n_rows: int, most: int) -> list[dict[str, int]]:
    return [{"first": first, "stop": min(first + most, n_rows)} for first in range(0, n_rows, most)]


def _write_csv(con: duckdb.DuckDBPyConnection, queries: list[str], path: Path, quoted: bool) -> None:
    """As MIMIC's files: gzip, times to the second, notes in quotes."""
    batches = (batch for query in queries for batch in con.sql(query).to_arrow_reader(_ROWS_A_BLOCK))
    first = next(batches)
    kinds = [
        (field.name, pa.timestamp("s") if pa.types.is_timestamp(field.type) else field.type) for field in first.schema
    ]
    schema = pa.schema([(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in kinds])
    options = csv.WriteOptions(quoting_style="needed" if quoted else "none", quoting_header="none")
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        csv.CSVWriter(packed, schema, write_options=options) as writer,
    ):
        for batch in chain([first], batches):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def _items(known: concepts.Concepts, prefix: str, kept_percent: int, other: int) -> str:
    """SQL of a row's item: one of those that concepts.csv keeps, or one that it does not know, by the row's hash."""
    frame = known.frame[known.frame.base_code.str.startswith(prefix) & (known.frame.kind == "numeric")]
    frame = frame[frame.is_default]
    if prefix == "CHART//":  # the reader drops a chart's copy of a lab
        frame = frame[frame.category != "lab"]
    kept = [
        f"{{id: {code.split('//')[1]}, unit: '{unit}', low: {low}, high: {high}}}"
        for code, unit, low, high in zip(frame.base_code, frame.source_unit, frame.low, frame.high, strict=True)
    ]
    unknown = [f"{{id: {other + i}, unit: 'mg/dL', low: 0.0, high: 100.0}}" for i in range(200)]
    of_kept = f"list_extract([{', '.join(kept)}], 1 + h % {len(kept)})"
    of_other = f"list_extract([{', '.join(unknown)}], 1 + h % {len(unknown)})"
    return f"CASE WHEN hash(h) % 100 < {kept_percent} THEN {of_kept} ELSE {of_other} END"
