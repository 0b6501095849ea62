"""A MIMIC-IV folder that tests write down by hand, row by row."""

import csv
import gzip
import random
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4

#: The columns of MIMIC-IV 3.1 and MIMIC-IV-Note 2.2, in their order.
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime edouttime "
    "hospital_expire_flag",
    "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
    "hosp/services": "subject_id hadm_id transfertime prev_service curr_service",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "hosp/drgcodes": "subject_id hadm_id drg_type drg_code description drg_severity drg_mortality",
    "hosp/hcpcsevents": "subject_id hadm_id chartdate hcpcs_cd seq_num short_description",
    "hosp/microbiologyevents": "microevent_id subject_id hadm_id micro_specimen_id order_provider_id chartdate "
    "charttime spec_itemid spec_type_desc test_seq storedate storetime test_itemid test_name org_itemid org_name "
    "isolate_num quantity ab_itemid ab_name dilution_text dilution_comparison dilution_value interpretation comments",
    "hosp/poe": "poe_id poe_seq subject_id hadm_id ordertime order_type order_subtype transaction_type "
    "discontinue_of_poe_id discontinued_by_poe_id order_provider_id order_status",
    "hosp/pharmacy": "subject_id hadm_id pharmacy_id poe_id starttime stoptime medication proc_type status entertime "
    "verifiedtime route frequency disp_sched infusion_type sliding_scale lockout_interval basal_rate one_hr_max "
    "doses_per_24_hrs duration duration_interval expiration_value expiration_unit expirationdate dispensation "
    "fill_quantity",
    "hosp/prescriptions": "subject_id hadm_id pharmacy_id poe_id poe_seq order_provider_id starttime stoptime "
    "drug_type drug formulary_drug_cd gsn ndc prod_strength form_rx dose_val_rx dose_unit_rx form_val_disp "
    "form_unit_disp doses_per_24_hrs route",
    "hosp/emar": "subject_id hadm_id emar_id emar_seq poe_id pharmacy_id enter_provider_id charttime medication "
    "event_txt scheduletime storetime",
    "hosp/omr": "subject_id chartdate seq_num result_name result_value",
    "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value "
    "valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "icu/chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom "
    "warning",
    "icu/inputevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount amountuom "
    "rate rateuom orderid linkorderid ordercategoryname secondaryordercategoryname ordercomponenttypedescription "
    "ordercategorydescription patientweight totalamount totalamountuom isopenbag continueinnextdept "
    "statusdescription originalamount originalrate",
    "icu/outputevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom",
    "icu/procedureevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid value valueuom "
    "location locationcategory orderid linkorderid ordercategoryname ordercategorydescription patientweight "
    "isopenbag continueinnextdept statusdescription ORIGINALAMOUNT ORIGINALRATE",
    "note/discharge": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "note/radiology": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
}
ALWAYS = ("hosp/patients", "hosp/admissions", "hosp/labevents", "icu/chartevents")
CREATININE, HEART_RATE, NOREPINEPHRINE, VENTILATION = 50912, 220045, 221906, 225792


@dataclass
class MimicFolder:
    """Tables of a MIMIC-IV folder. Patient 1, a woman of 60 in 2150, and her stay 10 are there from the start."""

    root: Path
    rows: dict[str, list[dict]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def __post_init__(self):
        self.patient()
        self.stay()

    @property
    def columns(self):
        return {name: columns.split() for name, columns in COLUMNS.items()}

    def add(self, table, **cells):
        self.rows[table].append(cells)
        return self

    def change(self, table, **cells):
        """Change the last row of a table."""
        self.rows[table][-1] |= cells
        return self

    def patient(self, subject_id=1, **cells):
        facts = {"gender": "F", "anchor_age": 60, "anchor_year": 2150, "anchor_year_group": "2011 - 2013"}
        return self.add("hosp/patients", subject_id=subject_id, **facts | cells)

    def stay(self, subject_id=1, hadm_id=10, **cells):
        facts = {"admittime": "2150-01-01 10:00:00", "dischtime": "2150-01-05 12:00:00", "hospital_expire_flag": 0}
        return self.add("hosp/admissions", subject_id=subject_id, hadm_id=hadm_id, **facts | cells)

    def lab(self, charttime="2150-01-02 06:00:00", storetime="2150-01-02 07:00:00", value="1.5", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "itemid": CREATININE, "valuenum": value, "valueuom": "mg/dL"}
        return self.add("hosp/labevents", charttime=charttime, storetime=storetime, value=value, **facts | cells)

    def chart(self, charttime="2150-01-02 06:00:00", storetime="2150-01-02 06:30:00", value="80", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "itemid": HEART_RATE, "valuenum": value, "valueuom": "bpm"}
        return self.add("icu/chartevents", charttime=charttime, storetime=storetime, value=value, **facts | cells)

    def drug(self, starttime="2150-01-02 08:00:00", stoptime="", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "drug": "Furosemide", "route": "IV", "drug_type": "MAIN"}
        return self.add("hosp/prescriptions", starttime=starttime, stoptime=stoptime, **facts | cells)

    def culture(self, charttime="2150-01-02 06:00:00", storetime="2150-01-04 09:00:00", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "micro_specimen_id": 5, "spec_type_desc": "BLOOD CULTURE"}
        facts |= {"test_name": "Blood Culture, Routine", "chartdate": "2150-01-02 00:00:00"}
        return self.add("hosp/microbiologyevents", charttime=charttime, storetime=storetime, **facts | cells)

    def infusion(self, starttime="2150-01-02 06:00:00", endtime="2150-01-02 09:00:00", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "itemid": NOREPINEPHRINE, "storetime": "2150-01-02 06:10:00"}
        facts |= {"rate": "0.1", "rateuom": "mcg/kg/min", "amount": "1.4", "amountuom": "mg", "patientweight": 80}
        facts |= {"statusdescription": "Stopped"}
        return self.add("icu/inputevents", starttime=starttime, endtime=endtime, **facts | cells)

    def procedure(self, starttime="2150-01-02 06:00:00", endtime="2150-01-02 09:00:00", **cells):
        facts = {"subject_id": 1, "hadm_id": 10, "itemid": VENTILATION, "storetime": "2150-01-02 06:10:00"}
        facts |= {"value": 180, "valueuom": "min", "statusdescription": "FinishedRunning"}
        return self.add("icu/procedureevents", starttime=starttime, endtime=endtime, **facts | cells)

    def note(self, charttime="2150-01-05 00:00:00", storetime="2150-01-06 09:00:00", table="discharge", **cells):
        n = len(self.rows[f"note/{table}"])
        facts = {"note_id": f"1-{table}-{n}", "subject_id": 1, "hadm_id": 10, "note_type": "DS", "text": "Well."}
        return self.add(f"note/{table}", charttime=charttime, storetime=storetime, **facts | cells)

    def write(self, suffix=".csv", **style):
        """Write every table that has rows or that a hospital must have; see `write_table` for the styles."""
        for name, rows in self.rows.items():
            if rows or name in ALWAYS:
                self.write_table(name, suffix, **style)
        return self.root

    def write_table(self, name, suffix=".csv", newline="\n", header=str, columns=None, shuffled=False, bom=False):
        columns = columns or self.columns[name]
        rows = list(self.rows[name])
        if shuffled:
            random.Random(0).shuffle(rows)
        path = self.root / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".parquet":
            _typed(pd.DataFrame(rows, columns=columns)).to_parquet(path)
            return path
        opener = gzip.open if suffix.endswith(".gz") else open
        with opener(path, "wt", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator=newline, restval="")
            writer.writerow({column: header(column) for column in columns})
            writer.writerows(rows)
        return path

    def read(self, write=True, **options):
        """Write the folder, read it with the real source, and return its EVENTS."""
        if write:
            self.write()
        workers = options.pop("workers", 1)
        out = self.root.parent / f"events-{len(list(self.root.parent.iterdir()))}"
        prepare = Prepare(cache=str(self.root.parent / "tables"), workers=workers, n_shards=2)
        self.facts = Mimic4(str(self.root), **options).read(out, prepare)
        return Events(out)


class Events:
    """What a source wrote."""

    def __init__(self, out):
        self.out = out
        parts = [pq.read_table(file).to_pandas() for file in sorted(out.glob("data/*.parquet"))]
        self.frame = pd.concat(parts, ignore_index=True)

    def of(self, prefix):
        """(time, available_time) of the only event whose code starts with `prefix`."""
        row = self.row(prefix)
        return str(row.time), str(row.available_time)

    def row(self, prefix):
        found = self.frame[self.frame.code.str.startswith(prefix)]
        assert len(found) == 1, list(self.frame.code)
        return found.iloc[0]

    def codes(self, prefix=""):
        return sorted(self.frame.code[self.frame.code.str.startswith(prefix)])

    def bytes(self):
        files = [*sorted(self.out.glob("data/*.parquet")), self.out / "metadata" / "codes.parquet"]
        return {str(file.relative_to(self.out)): file.read_bytes() for file in files}


def _typed(frame):
    """As a careful person would write Parquet: times as times, numbers as numbers, ids with gaps as whole numbers."""
    for column in frame.columns:
        if column in ("dod", "chartdate", "storedate") or column.endswith("time"):
            frame[column] = pd.to_datetime(frame[column]).astype("datetime64[us]")
        elif column in ("valuenum", "los", "amount", "rate", "patientweight"):
            frame[column] = pd.to_numeric(frame[column])
        elif column.endswith("_id") and column not in ("note_id", "poe_id", "emar_id"):
            frame[column] = pd.to_numeric(frame[column]).astype("Int64")
        elif frame[column].map(type).eq(str).any():
            frame[column] = frame[column].astype("string")
    return frame


@pytest.fixture
def mimic(tmp_path):
    """A MIMIC-IV folder with one patient and one stay."""
    return MimicFolder(tmp_path / "mimic")
