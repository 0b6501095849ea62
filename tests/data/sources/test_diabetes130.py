"""The reader of Diabetes-130 on hand-made tables, trap by trap, and on the real one where it is there."""

import gzip
import os
import zipfile
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from ehrdl.clinical.concepts import load
from ehrdl.engine.files import read_json
from ehrdl.engine.options import Prepare
from ehrdl.errors import SchemaError
from ehrdl.events.writer import validate
from ehrdl.sources.diabetes130.rows import COLUMNS
from ehrdl.sources.diabetes130.source import Diabetes130

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("EHRDL_DATA", ROOT.parent / "shared" / "data")) / "uci-diabetes-130"
MAPPING = (
    "admission_type_id,description\n1,Emergency\n,\ndischarge_disposition_id,description\n11,Expired\n,\n"
    'admission_source_id,description\n7," Emergency Room"\n'
)
USUAL = dict.fromkeys(COLUMNS, "No") | {
    "encounter_id": 10,
    "patient_nbr": 1,
    "race": "Caucasian",
    "gender": "Female",
    "age": "[70-80)",
    "weight": "?",
    "admission_type_id": 1,
    "discharge_disposition_id": 1,
    "admission_source_id": 7,
    "time_in_hospital": 3,
    "payer_code": "?",
    "medical_specialty": "Cardiology",
    "num_lab_procedures": 40,
    "num_procedures": 0,
    "num_medications": 12,
    "number_outpatient": 0,
    "number_emergency": 0,
    "number_inpatient": 2,
    "diag_1": "428",
    "diag_2": "250.02",
    "diag_3": "?",
    "number_diagnoses": 9,
    "max_glu_serum": "None",
    "a1cresult": "None",
    "diabetesmed": "Yes",
    "readmitted": "NO",
}


def table(*rows):
    """The CSV text of stays, each a dict of what is not usual."""
    names = {"a1cresult": "A1Cresult", "diabetesmed": "diabetesMed"}
    return pd.DataFrame([USUAL | row for row in rows]).rename(columns=names).to_csv(index=False)


@pytest.fixture
def write(tmp_path):
    def make(*rows, text=None):
        folder = tmp_path / "uci"
        folder.mkdir(exist_ok=True)
        (folder / "diabetic_data.csv").write_text(text if text is not None else table(*rows), encoding="utf-8")
        (folder / "IDs_mapping.csv").write_text(MAPPING, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def read(tmp_path):
    def run(root):
        out = tmp_path / f"events-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        facts = Diabetes130(str(root)).read(out, Prepare(cache=str(tmp_path / "cache"), workers=1))
        validate(out)
        with duckdb.connect() as con:
            return con.sql(f"SELECT * FROM '{out}/data/*.parquet' ORDER BY subject_id, time, code").df(), facts

    return run


def codes(events, prefix):
    return sorted(code for code in events.code if code.startswith(prefix))


def test_a_stay_becomes_facts_that_are_known_at_its_discharge(write, read):
    events, _ = read(write({}))
    stay = events[events.encounter_id == 10].set_index("code")
    assert stay.numeric_value["STAY//age//years"] == 75  # the middle of [70-80)
    assert stay.numeric_value["STAY//number_inpatient//count"] == 2
    known = stay[~stay.index.str.startswith("READMITTED")]
    assert set(known.available_time) == {pd.Timestamp("2000-01-01 12:00")}
    assert stay.time["DISPOSITION//1"] == pd.Timestamp("2000-01-01 12:00")
    assert codes(events, "GENDER") == ["GENDER//F"]


def test_stays_follow_by_encounter_id_a_day_each_and_an_outcome_is_known_when_the_next_begins(write, read, capsys):
    stays = [{"encounter_id": 30, "readmitted": "NO"}, {"encounter_id": 20, "readmitted": "<30"}]
    events, facts = read(write(*stays))
    starts = events[events.code == "ENCOUNTER"].set_index("encounter_id")
    assert starts.time.to_dict() == {20: pd.Timestamp("2000-01-01"), 30: pd.Timestamp("2000-01-02")}
    outcome = events[events.encounter_id == 20].set_index("code").loc["READMITTED//<30"]
    assert outcome.available_time == starts.time[30] > starts.available_time[20]
    assert facts["tables"]["diabetic_data"]["order"] == {
        "followed": 1,
        "followed_readmitted": 1,
        "last": 1,
        "last_readmitted": 0,
    }
    assert facts["missing"] == []
    said = capsys.readouterr().err
    assert "since there are no dates: of 1 that another follows 100.0% are labelled readmitted" in said


def test_an_order_that_the_labels_contradict_is_said_to_be_in_doubt(write, read):
    _, facts = read(write({"encounter_id": 20, "readmitted": "NO"}, {"encounter_id": 30, "readmitted": "<30"}))
    assert any("the order of stays is in doubt" in line for line in facts["missing"])


def test_unknown_is_no_fact_and_is_told_from_a_test_that_was_not_done(write, read):
    rows = [
        {"race": "?", "a1cresult": "None", "max_glu_serum": ">200"},
        {"encounter_id": 11, "patient_nbr": 2, "a1cresult": "?", "gender": "Unknown/Invalid"},
    ]
    events, facts = read(write(*rows))
    assert codes(events, "RACE") == ["RACE//Caucasian"]
    assert codes(events, "A1C") == ["A1C//None"]
    assert codes(events, "GLUCOSE") == ["GLUCOSE//>200", "GLUCOSE//None"]
    assert codes(events, "GENDER") == ["GENDER//F"]
    unknown = facts["tables"]["diabetic_data"]["unknown"]
    assert unknown == {"race": 1, "payer_code": 2, "a1cresult": 1, "weight": 2, "gender": 1, "diag_3": 2}


def test_drugs_that_are_not_given_are_no_fact_and_their_changes_are_told_apart(write, read):
    events, _ = read(write({"insulin": "Up", "glyburide-metformin": "Steady", "change": "Ch", "diabetesmed": "No"}))
    assert codes(events, "DRUG") == [
        "DRUG//glyburide-metformin//Steady",
        "DRUG//insulin//Up",
        "DRUGS//changed",
        "DRUGS//none",
    ]


def test_a_diagnosis_keeps_its_place_and_gets_back_the_zeros_that_its_category_lost(write, read):
    events, _ = read(write({"diag_1": "8", "diag_2": "38.11", "diag_3": "V57"}))
    places = events[events.code.str.startswith("DIAGNOSIS")].set_index("code").numeric_value.to_dict()
    assert places == {
        "DIAGNOSIS_PRINCIPAL//ICD9//008": 1,
        "DIAGNOSIS_SECONDARY//ICD9//038.11": 2,
        "DIAGNOSIS_SECONDARY//ICD9//V57": 3,
    }


@pytest.mark.parametrize(
    ("code", "channel"),
    [
        ("428.0", "heart_failure"),
        ("414", "ischaemic_heart"),
        ("401.9", "circulatory"),
        ("785", "circulatory"),
        ("786.5", "respiratory"),
        ("496", "copd"),
        ("250.83", "diabetes"),
        ("251.2", "endocrine"),
        ("276", "endocrine"),
        ("782", "skin"),
        ("780", "symptoms"),
        ("789", "symptoms"),
        ("788.2", "genitourinary"),
        ("585", "kidney"),
        ("599", "genitourinary"),
        ("008", "infection"),
        ("038.9", "infection"),
        ("140", "neoplasm"),
        ("998.5", "injury"),
        ("V57", "supplementary"),
        ("E885", "external"),
    ],
)
def test_diagnoses_are_grouped_as_strack_2014_has_them(code, channel):
    known = load(Diabetes130.concepts_file())
    for place in ("principal", "secondary"):
        assert known.match([f"DIAGNOSIS_{place.upper()}//ICD9//{code}"]).channel.tolist() == [f"{place}_{channel}"]


def test_every_icd9_category_has_one_group():
    known = load(Diabetes130.concepts_file())
    every = [f"DIAGNOSIS_PRINCIPAL//ICD9//{number:03d}" for number in range(1, 1000)]
    assert set(every) - set(known.match(every).code) == set()


def test_no_channel_is_hidden_from_models_but_the_disputed_weight():
    known = load(Diabetes130.concepts_file())
    assert not known.match(["WEIGHT//[75-100)"]).size
    assert {channel.category for channel in known.channels} == {"administrative", "lab", "drug"}


def test_the_table_is_read_plain_gzipped_and_from_uci_s_zip_alike(write, read, tmp_path):
    plain = write({"insulin": "Down"}, {"encounter_id": 11})
    expected, _ = read(plain)
    packed, zipped = tmp_path / "gz", tmp_path / "zip"
    for folder in (packed, zipped):
        folder.mkdir()
    text = (plain / "diabetic_data.csv").read_bytes()
    (packed / "diabetic_data.csv.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(zipped / "dataset_diabetes.zip", "w") as archive:
        archive.writestr("dataset_diabetes/diabetic_data.csv", text)
        archive.writestr("dataset_diabetes/IDs_mapping.csv", MAPPING)
    for folder in (packed, zipped):
        pd.testing.assert_frame_equal(read(folder)[0], expected)
    assert any("IDs_mapping.csv: not under" in line for line in read(packed)[1]["missing"])


def test_the_codes_get_the_names_that_uci_gives_them(write, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "named"
    out.mkdir()
    Diabetes130(str(write({}, {"encounter_id": 11, "discharge_disposition_id": 11}))).read(out, Prepare(workers=1))
    codes = pq.read_table(out / "metadata" / "codes.parquet").to_pandas().set_index("code").description
    assert codes["DISPOSITION//11"] == "Expired" and codes["ADMISSION_SOURCE//7"] == "Emergency Room"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"age": "75"}], r"encounter 10: column age: '75' is no band such as \[70-80\)"),
        ([{"readmitted": "YES"}], "encounter 10: column readmitted: 'YES' is none of NO, >30, <30"),
        ([{"insulin": "Often"}], "encounter 10: column insulin: 'Often' is none of No, Steady, Up, Down"),
        ([{}, {}], "encounter 10: column encounter_id: stands 2 times; each stay has one row"),
        ([{"patient_nbr": ""}], "encounter 10: has no encounter_id or no patient_nbr"),
        (
            [{"time_in_hospital": "three"}],
            r"diabetic_data\.csv: row 1, column time_in_hospital: 'three' is not a whole",
        ),
    ],
)
def test_a_cell_that_cannot_be_is_one_line(write, read, rows, message):
    with pytest.raises(SchemaError, match=message) as error:
        read(write(*rows))
    assert "\n" not in str(error.value)


def test_a_missing_column_folder_or_table_is_one_line(write, read, tmp_path):
    with pytest.raises(SchemaError, match="column readmitted is missing"):
        read(write(text=table({}).replace(",readmitted", ",returned")))
    with pytest.raises(SchemaError, match="has no rows"):
        read(write(text=table({}).splitlines()[0] + "\n"))
    with pytest.raises(SchemaError, match=r"data\.source\.root: the folder .* does not exist"):
        Diabetes130(str(tmp_path / "nowhere")).fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SchemaError, match="the table is missing"):
        Diabetes130(str(tmp_path / "empty")).fingerprint()
    (tmp_path / "empty" / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(SchemaError, match=r"broken\.zip: is damaged, or no zip"):
        Diabetes130(str(tmp_path / "empty")).fingerprint()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"Diabetes-130 is not at {REAL}; set EHRDL_DATA")
def test_the_real_table_supports_the_order_of_its_stays(tmp_path):
    out = tmp_path / "events"
    out.mkdir()
    Diabetes130(str(REAL)).read(out, Prepare(cache=str(tmp_path)))
    counts = validate(out)
    assert counts["subjects"] == 57_289
    facts = Diabetes130(str(REAL))
    assert facts.n_bytes() > 0
    with duckdb.connect() as con:
        sql = f"SELECT count(*) FROM '{out}/data/*.parquet' WHERE code = 'ENCOUNTER'"
        assert con.execute(sql).fetchall() == [(81_568,)]
    assert read_json(out / "metadata" / "dataset.json")["dataset_name"] == "Diabetes-130"
