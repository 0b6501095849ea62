"""The text of a record, word by word, for hospitals that a test writes down fact by fact. Times are hours."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical import concepts, reference
from ehrdl.data.config import SECTIONS, RecordOptions
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import static_features, subject_facts
from ehrdl.data.record.coded import build as build_coded
from ehrdl.data.record.coded import open_coded
from ehrdl.data.record.text import verbalize
from ehrdl.data.series.store import build as build_store
from ehrdl.data.series.store import open_store
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError

KNOWN = concepts.load()
SHOWN = [channel for channel in KNOWN.channels if channel.category != "encounter"]
YEAR = 24 * 365.25
#: (subject, time, code, number, text, available)
RECORD = [
    (1, None, "GENDER//F", None, None, None),
    (1, -70.5 * YEAR, "MEDS_BIRTH", None, None, -70.5 * YEAR),
    (1, -1200, "ADMISSION//EMERGENCY ROOM", None, None, -1200),
    (1, -1100, "DISCHARGE//HOME", None, None, -1100),
    (1, -1100, "DIAGNOSIS//ICD10//I500", 2, None, -900),
    (1, -1100, "DIAGNOSIS//ICD10//N179", 1, None, -900),
    (1, -1100, "PROCEDURE//ICD10//5A1D70Z", 1, None, -900),
    (1, 0, "ADMISSION//EMERGENCY ROOM", None, None, 0),
    (1, 0, "TRANSFER_IN//Emergency Department", None, None, 0),
    (1, 4, "TRANSFER_IN//Medicine", None, None, 4),
    (1, 5, "DRUG_START//Furosemide//IV", 20, None, 5),
    (1, 6, "DRUG_START//Aspirin//PO", 81, None, 6),
    (1, 7, "DRUG_START//Furosemide//IV", 40, None, 7),
    (1, 2, "LAB//50912//mg/dL", 1.4, None, 3),
    (1, 60, "LAB//50912//mg/dL", 2.1, None, 61),
    (1, 60, "LAB//50983//mEq/L", 139, None, 61),
    (1, 62, "CHART//220045//bpm", 55, None, 62),
    (1, 40, "MICRO_TAKEN//BLOOD CULTURE", None, None, 40),
    (1, 41, "MICRO_TAKEN//BLOOD CULTURE", None, None, 41),
]


@pytest.fixture
def hospital(build, tmp_path):
    """The dataset and the coded facts of rows of EVENTS, for samples (subject, prediction time)."""

    def make(rows, at, window=None, channels=SHOWN):
        events = build.events(tmp_path / "events", rows, n_shards=2)
        for name in ("store", "coded"):
            (tmp_path / name).mkdir()
        build_store(events, KNOWN, tmp_path / "store", Prepare())
        build_coded(events, tmp_path / "coded", Prepare())
        samples, store = build.samples(at), open_store(tmp_path / "store", KNOWN)
        static = static_features(samples, subject_facts(events), store)
        dataset = SampleDataset(samples, static, store, None, window or Window(), channels)
        return dataset, open_coded(tmp_path / "coded")

    return make


def test_a_record_reads_as_written_here(hospital):
    [text] = verbalize(*hospital(RECORD, [(1, 64)]), [0])
    assert text.splitlines() == [
        "Age 70, female. Admissions: 2, 2 in the last year, the last 3 days ago, 46 days after the stay before it.",
        "Care units: Medicine; Emergency Department.",
        "Diagnoses of earlier stays: ICD10 N179; ICD10 I500.",
        "Procedures of earlier stays: ICD10 5A1D70Z.",
        "Drugs: Furosemide IV; Aspirin PO.",
        "Laboratory: 4 h ago: sodium 139 mEq/L, high creatinine 2.1 mg/dL rising from 1.4.",
        "Vital signs: 2 h ago: low heart rate 55 bpm.",
        "Treatment and events: 23 h ago: culture (2 times); 2 days ago: iv loop diuretic ordered (2 times).",
    ]


def test_each_fact_enters_when_it_is_available_and_not_when_it_happened(hospital):
    at = [(1, 2.5), (1, 3), (1, 60.5), (1, 61)]
    texts = verbalize(*hospital(RECORD, at), range(4))
    assert ["creatinine" in text for text in texts] == [False, True, True, True]
    assert ["creatinine 2.1" in text for text in texts] == [False, False, False, True]
    assert ["Furosemide" in text for text in texts] == [False, False, True, True]


def test_codes_of_a_stay_wait_for_their_coding(hospital):
    before, after = verbalize(*hospital(RECORD, [(1, -901), (1, -900)]), [0, 1])
    assert "Diagnoses" not in before and "Procedures" not in before
    assert "Diagnoses of earlier stays: ICD10 N179; ICD10 I500." in after


def test_drugs_and_measurements_leave_with_the_window_but_diagnoses_stay(hospital):
    [text] = verbalize(*hospital(RECORD, [(1, 64)], Window(series_hours=20)), [0])
    assert "Drugs:" not in text and "Care units" not in text and "culture" not in text
    assert "high creatinine 2.1 mg/dL." in text  # the earlier one is out of sight, so it does not rise
    assert "ICD10 N179" in text


def test_only_the_latest_observations_that_a_sample_keeps_are_told(hospital):
    [text] = verbalize(*hospital(RECORD, [(1, 64)], Window(max_observations=2)), [0])
    assert "creatinine 2.1 mg/dL." in text and "heart rate 55" in text and "sodium" not in text


def test_a_channel_that_the_dataset_does_not_load_is_never_told(hospital):
    channels = [channel for channel in SHOWN if channel.name != "creatinine"]
    [text] = verbalize(*hospital(RECORD, [(1, 64)], channels=channels), [0])
    assert "sodium" in text and "creatinine" not in text


@pytest.mark.parametrize("code", ["DIAGNOSIS//ICD10//I50", "diagnosis//icd10//i500", "DIAGNOSIS//ICD10//I500"])
def test_a_hidden_code_is_never_named_and_no_other_takes_its_place(hospital, code):
    hidden = verbalize(*hospital(RECORD, [(1, 64)]), [0], hidden_codes=[code])[0]
    assert "Diagnoses of earlier stays: ICD10 N179." in hidden


def test_hidden_drugs_and_procedures_are_not_named_either(hospital):
    [text] = verbalize(*hospital(RECORD, [(1, 64)]), [0], hidden_codes=["DRUG_START//Furosemide", "PROCEDURE//ICD"])
    assert "Furosemide" not in text and "5A1D70Z" not in text and "Drugs: Aspirin PO." in text


def test_the_latest_come_first_and_no_more_than_asked_for(hospital):
    options = RecordOptions(max_diagnoses=1, max_drugs=1, max_units=1)
    [text] = verbalize(*hospital(RECORD, [(1, 64)]), [0], options)
    for line in ("Care units: Medicine.", "Diagnoses of earlier stays: ICD10 N179.", "Drugs: Furosemide IV."):
        assert line in text


def test_sections_stand_in_one_order_however_they_are_chosen(hospital):
    dataset, coded = hospital(RECORD, [(1, 64)])
    [text] = verbalize(dataset, coded, [0], RecordOptions(sections=["vitals", "drugs"]))
    assert text == "Drugs: Furosemide IV; Aspirin PO.\nVital signs: 2 h ago: low heart rate 55 bpm."
    parts = [verbalize(dataset, coded, [0], RecordOptions(sections=[name]))[0] for name in SECTIONS]
    assert "\n".join(parts) == verbalize(dataset, coded, [0])[0]


def test_a_subject_of_whom_nothing_is_known_has_a_text_that_says_so(hospital):
    dataset, coded = hospital(RECORD, [(1, 64), (9, 64)])
    assert verbalize(dataset, coded, [1]) == ["Age unknown, sex unknown. No admission."]
    assert verbalize(dataset, coded, [1], RecordOptions(sections=["drugs", "vitals"])) == ["Nothing is recorded."]


def test_texts_come_in_the_order_that_is_asked_for(hospital):
    dataset, coded = hospital([*RECORD, (2, 1, "LAB//50983//mEq/L", 120.0, None, 1)], [(1, 5), (1, 64), (2, 5)])
    one_by_one = [verbalize(dataset, coded, [row])[0] for row in range(3)]
    assert len(set(one_by_one)) == 3 and "low sodium 120" in one_by_one[2]
    rows = [2, 0, 1, 0]
    assert verbalize(dataset, coded, rows) == [one_by_one[row] for row in rows]
    assert verbalize(dataset, coded, []) == []


def test_a_description_stands_for_its_code(build, hospital, tmp_path):
    (tmp_path / "events" / "metadata").mkdir(parents=True)
    codes = {"code": ["DIAGNOSIS//ICD10//I500"], "description": ["Heart failure,  unspecified"]}
    pd.DataFrame(codes).to_parquet(tmp_path / "events" / "metadata" / "codes.parquet")
    (tmp_path / "events" / "metadata").rename(tmp_path / "metadata")
    (tmp_path / "events").rmdir()
    events = build.events(tmp_path / "events", RECORD)
    (tmp_path / "metadata").rename(events / "metadata")
    (tmp_path / "again").mkdir()
    build_coded(events, tmp_path / "again", Prepare())
    names = open_coded(tmp_path / "again")["diagnoses"].names
    assert "Heart failure, unspecified" in names and "ICD10 N179" in names


def test_reference_ranges_are_of_channels_and_units_that_there_are():
    units = {(channel.name, channel.unit) for channel in KNOWN.channels if channel.kind == "numeric"}
    assert set(reference.read()) <= units and len(reference.read()) > 60
    for sexes in reference.read().values():
        for low, high in sexes:
            assert not low >= high  # one of them may be missing
            assert low == low or high == high


def test_limits_of_an_unknown_sex_are_those_that_hold_for_either():
    low, high = reference.limits([("hemoglobin", "g/dL"), ("hemoglobin", "g/L"), ("spo2", "%")])
    assert low[:, 0].tolist() == pytest.approx([11.2, 13.7, 11.2])
    assert high[:, 0].tolist() == pytest.approx([15.7, 17.5, 17.5])
    assert np.isnan(low[:, 1]).all() and low[0, 2] == 96 and np.isnan(high[:, 2]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sections": []}, r"data\.notes\.record\.sections: \[\] is empty"),
        ({"sections": ["labs"]}, r"data\.notes\.record\.sections: 'labs' is not one of demographics, units"),
        ({"max_drugs": 0}, r"data\.notes\.record\.max_drugs: 0 is below 1; leave the section out"),
    ],
)
def test_options_that_cannot_work_are_refused_by_their_key(options, message):
    with pytest.raises(ConfigError, match=message):
        RecordOptions(**options)
