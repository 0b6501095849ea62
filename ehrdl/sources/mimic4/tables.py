"""The tables of MIMIC-IV that are read: their columns with types, their keys, and how each is treated."""

_IDS = {"subject_id": "BIGINT", "hadm_id": "BIGINT"}
_NOTE_COLUMNS = {
    "note_id": "VARCHAR",
    **_IDS,
    "note_type": "VARCHAR",
    "charttime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "text": "VARCHAR",
}
_RESULT_COLUMNS = {
    **_IDS,
    "itemid": "BIGINT",
    "charttime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "value": "VARCHAR",
    "valuenum": "DOUBLE",
    "valueuom": "VARCHAR",
}
_ICD_COLUMNS = {**_IDS, "seq_num": "INTEGER", "icd_code": "VARCHAR", "icd_version": "INTEGER"}
_SPAN_COLUMNS = {
    **_IDS,
    "starttime": "TIMESTAMP",
    "endtime": "TIMESTAMP",
    "storetime": "TIMESTAMP",
    "itemid": "BIGINT",
    "statusdescription": "VARCHAR",
}
#: Every table that is read, with the types of its columns, in the order of reading. A table that is not here is
#: refused: each needs a rule that says when its facts can be seen.
TABLES: dict[str, dict[str, str]] = {
    "hosp/patients": {
        "subject_id": "BIGINT",
        "gender": "VARCHAR",
        "anchor_age": "SMALLINT",
        "anchor_year": "SMALLINT",
        "anchor_year_group": "VARCHAR",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        **_IDS,
        "admittime": "TIMESTAMP",
        "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP",
        "admission_type": "VARCHAR",
        "admission_location": "VARCHAR",
        "discharge_location": "VARCHAR",
        "insurance": "VARCHAR",
        "language": "VARCHAR",
        "marital_status": "VARCHAR",
        "race": "VARCHAR",
        "edregtime": "TIMESTAMP",
        "edouttime": "TIMESTAMP",
        "hospital_expire_flag": "INTEGER",
    },
    "hosp/transfers": {
        **_IDS,
        "eventtype": "VARCHAR",
        "careunit": "VARCHAR",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "hosp/services": {**_IDS, "transfertime": "TIMESTAMP", "curr_service": "VARCHAR"},
    "hosp/diagnoses_icd": _ICD_COLUMNS,
    "hosp/procedures_icd": _ICD_COLUMNS,
    "hosp/drgcodes": {**_IDS, "drg_type": "VARCHAR", "drg_code": "VARCHAR", "description": "VARCHAR"},
    "hosp/hcpcsevents": {**_IDS, "hcpcs_cd": "VARCHAR", "seq_num": "INTEGER"},
    "hosp/labevents": {**_RESULT_COLUMNS, "comments": "VARCHAR"},
    "hosp/microbiologyevents": {
        **_IDS,
        "micro_specimen_id": "BIGINT",
        "chartdate": "TIMESTAMP",
        "charttime": "TIMESTAMP",
        "spec_type_desc": "VARCHAR",
        "storedate": "TIMESTAMP",
        "storetime": "TIMESTAMP",
        "test_name": "VARCHAR",
        "org_name": "VARCHAR",
        "ab_name": "VARCHAR",
        "interpretation": "VARCHAR",
        "comments": "VARCHAR",
    },
    "hosp/poe": {"subject_id": "BIGINT", "poe_id": "VARCHAR", "ordertime": "TIMESTAMP"},
    "hosp/pharmacy": {"subject_id": "BIGINT", "pharmacy_id": "BIGINT", "entertime": "TIMESTAMP"},
    "hosp/prescriptions": {
        **_IDS,
        "pharmacy_id": "BIGINT",
        "poe_id": "VARCHAR",
        "starttime": "TIMESTAMP",
        "stoptime": "TIMESTAMP",
        "drug": "VARCHAR",
        "dose_val_rx": "VARCHAR",
        "dose_unit_rx": "VARCHAR",
        "route": "VARCHAR",
    },
    "hosp/emar": {
        **_IDS,
        "charttime": "TIMESTAMP",
        "medication": "VARCHAR",
        "event_txt": "VARCHAR",
        "storetime": "TIMESTAMP",
    },
    "hosp/omr": {
        "subject_id": "BIGINT",
        "chartdate": "TIMESTAMP",
        "result_name": "VARCHAR",
        "result_value": "VARCHAR",
    },
    "icu/icustays": {
        **_IDS,
        "first_careunit": "VARCHAR",
        "last_careunit": "VARCHAR",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "icu/chartevents": _RESULT_COLUMNS,
    "icu/inputevents": {
        **_SPAN_COLUMNS,
        "amount": "DOUBLE",
        "amountuom": "VARCHAR",
        "rate": "DOUBLE",
        "rateuom": "VARCHAR",
        "patientweight": "DOUBLE",
    },
    "icu/outputevents": {
        **_IDS,
        "charttime": "TIMESTAMP",
        "storetime": "TIMESTAMP",
        "itemid": "BIGINT",
        "value": "DOUBLE",
        "valueuom": "VARCHAR",
    },
    "icu/procedureevents": {**_SPAN_COLUMNS, "value": "DOUBLE", "valueuom": "VARCHAR"},
    "note/discharge": _NOTE_COLUMNS,
    "note/radiology": _NOTE_COLUMNS,
}
#: Columns that a table may lack; they are null then.
OPTIONAL = {"hosp/labevents": ("comments",)}
#: What no two rows of a table share: a table that was appended to itself would double the evidence.
KEYS = {
    "hosp/patients": "subject_id",
    "hosp/admissions": "hadm_id",
    "note/discharge": "note_id",
    "note/radiology": "note_id",
}
#: Read in one pass, straight into EVENTS: whatever its size, little of it is held.
STREAMED = (
    "hosp/diagnoses_icd",
    "hosp/drgcodes",
    "hosp/emar",
    "hosp/hcpcsevents",
    "hosp/labevents",
    "hosp/omr",
    "hosp/procedures_icd",
    "hosp/services",
    "hosp/transfers",
    "icu/icustays",
    "icu/chartevents",
    "icu/inputevents",
    "icu/outputevents",
    "icu/procedureevents",
    "note/discharge",
    "note/radiology",
)
#: Rows that are looked at more than once, or joined: spread over shards first, then a shard at a time.
SHARDED = ("hosp/microbiologyevents", "hosp/prescriptions")
#: Stays are needed by every other table, so these are always read, stays first.
REQUIRED = ("hosp/admissions", "hosp/patients")
#: MIMIC-IV-Note is a data set of its own, which many who have MIMIC-IV do not hold: its absence is said, not refused.
NOTES = ("note/discharge", "note/radiology")
#: Where the series come from. A hospital with neither has none, which no one means who did not say so.
SERIES = ("hosp/labevents", "icu/chartevents")
#: Read for the times of orders alone, and only with prescriptions.
ORDERS = ("hosp/poe", "hosp/pharmacy")
