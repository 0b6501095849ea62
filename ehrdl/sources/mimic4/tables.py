"""The MIMIC-IV tables that ehrdl can read: their columns with types, their keys, and how each table is read."""

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
#: Every table that is read, with the types of its columns, in the order of reading. Any other table is refused, because
#: each table needs a rule for when its facts can be seen.
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
#: Columns that may be missing from a table, and are then null.
OPTIONAL = {"hosp/labevents": ("comments",)}
#: The key that no two rows of a table may share. Otherwise, a table appended to itself would double the evidence.
KEYS = {
    "hosp/patients": "subject_id",
    "hosp/admissions": "hadm_id",
    "note/discharge": "note_id",
    "note/radiology": "note_id",
}
#: Tables that are read in one pass, directly into EVENTS. Little is held in memory, whatever their size.
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
#: Tables with rows that are read more than once, or joined. They are spread over shards, then read shard by shard.
SHARDED = ("hosp/microbiologyevents", "hosp/prescriptions")
#: Tables that are always read. Stays come first, because every other table needs them.
REQUIRED = ("hosp/admissions", "hosp/patients")
#: MIMIC-IV-Note is a separate data set that many users of MIMIC-IV lack. Its absence is reported but accepted.
NOTES = ("note/discharge", "note/radiology")
#: The tables that series come from. If both are missing there are no series, which is an error unless `tables` is set.
SERIES = ("hosp/labevents", "icu/chartevents")
#: Tables read only for the times of orders, and only with prescriptions.
ORDERS = ("hosp/poe", "hosp/pharmacy")
