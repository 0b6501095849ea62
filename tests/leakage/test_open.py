"""Nothing that becomes known after a prediction reaches it: Diabetes-130's outcomes, PhysioNet 2019's later hours."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from ehrdl.batch import Batch
from ehrdl.data.config import DataConfig
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Collate
from ehrdl.data.prepare import find_samples, prepare, read_events
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.sources.diabetes130.rows import COLUMNS as UCI_COLUMNS
from ehrdl.sources.diabetes130.source import Diabetes130
from ehrdl.sources.physionet2019.files import COLUMNS
from ehrdl.sources.physionet2019.source import Physionet2019
from ehrdl.splits.subjects import Split
from ehrdl.tasks.diabetes import DiabetesReadmission
from ehrdl.tasks.sepsis2019 import HourlySepsis

SPLIT = Split(tuning=0.3, held_out=0.3)


def sight(prepared, row):
    """All that a deep model or a baseline gets of one sample, but for its label and the encoding of channels."""
    batch = Collate(None, None)(prepared.dataset[row])
    seen = {field.name: getattr(batch, field.name).numpy() for field in fields(Batch) if field.name != "label"}
    names = [channel.name for channel in prepared.spec.channels]
    seen["channel"] = np.array([names[i] for i in seen["channel"].ravel()])
    table = tabulate(prepared.dataset, np.array([row]), rich=True).iloc[0].dropna()
    return seen, table[table != 0]


def same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, values in one[0].items():
        np.testing.assert_array_equal(values, other[0][name], err_msg=name)
    pd.testing.assert_series_equal(one[1], other[1])


def stays(rng, n_patients=40):
    """A table of invented stays: some patients have three, with outcomes at random."""
    rows = []
    for patient in range(1, n_patients + 1):
        for place in range(3 if patient % 2 else 1):
            row = dict.fromkeys(UCI_COLUMNS, "No") | {
                "encounter_id": 100 * patient + place,
                "patient_nbr": patient,
                "race": rng.choice(["Caucasian", "?"]),
                "gender": rng.choice(["Female", "Male"]),
                "age": rng.choice(["[50-60)", "[70-80)"]),
                "weight": "?",
                "admission_type_id": 1,
                "discharge_disposition_id": 1,
                "admission_source_id": 7,
                "max_glu_serum": "None",
                "a1cresult": rng.choice([">8", "None"]),
                "insulin": rng.choice(["Up", "No"]),
                "diag_1": rng.choice(["428", "250.02", "8"]),
                "change": rng.choice(["Ch", "No"]),
                "diabetesmed": "Yes",
                "readmitted": rng.choice(["<30", "NO", ">30"]),
            }
            counts = ("time_in_hospital", "num_lab_procedures", "num_procedures", "num_medications")
            visits = ("number_outpatient", "number_emergency", "number_inpatient", "number_diagnoses")
            rows.append(row | {name: int(rng.integers(1, 9)) for name in (*counts, *visits)})
    return pd.DataFrame(rows)


def prepare_stays(frame, folder, **options):
    folder.mkdir()
    frame.to_csv(folder / "diabetic_data.csv", index=False)
    window = Window(series_hours=168)
    config = DataConfig(Diabetes130(str(folder)), window=window, split=SPLIT, prepare=Prepare(str(folder / "cache")))
    events = read_events(config)
    return prepare(config, events, find_samples(events, DiabetesReadmission(**options)))


@pytest.fixture(scope="module")
def table():
    return stays(np.random.default_rng(3))


@pytest.fixture(scope="module")
def ours(table, tmp_path_factory):
    return prepare_stays(table, tmp_path_factory.mktemp("diabetes") / "ours")


def test_a_stay_s_own_outcome_and_all_that_follows_it_change_nothing_of_what_it_sees(table, ours, tmp_path):
    first = table.encounter_id % 100 == 0
    outcome = table.readmitted.map({"<30": "NO", "NO": "<30", ">30": "<30"})
    later = table.assign(num_medications=table.num_medications + 50, diag_1="V57", insulin="Down", readmitted=outcome)
    changed = table.assign(readmitted=outcome).where(first, later)
    theirs = prepare_stays(changed, tmp_path / "changed")
    alone = prepare_stays(table[first | (table.patient_nbr > 20)], tmp_path / "alone")
    for patient in range(1, 21):
        row = int(np.flatnonzero(ours.samples.encounter_id == 100 * patient)[0])
        for other in (theirs, alone):
            at = int(np.flatnonzero(other.samples.encounter_id == 100 * patient)[0])
            one, two = sight(ours, row), sight(other, at)
            one[0].pop("row"), two[0].pop("row")
            same(one, two)


def test_an_earlier_stay_s_outcome_is_seen_by_the_next_stay_and_only_where_the_task_allows(table, ours, tmp_path):
    names = {channel.name for channel in ours.spec.channels}
    assert "earlier_readmitted_30d" in names
    hidden = prepare_stays(table, tmp_path / "hidden", past_outcomes=False)
    assert not any("readmitted" in channel.name for channel in hidden.spec.channels)
    before = table.readmitted.where(table.encounter_id % 100 == 1)[lambda s: s.notna()]
    for at, value in before.items():
        stay = int(table.encounter_id[at])
        row = int(np.flatnonzero(ours.samples.encounter_id == stay + 1)[0])
        hours = tabulate(ours.dataset, np.array([row])).iloc[0]["earlier_readmitted_30d__hours_since_last"]
        assert (hours == 18) == (value == "<30")  # the outcome of the day before; one of two days before is at 42


def test_no_length_of_the_made_up_time_axis_is_a_static_feature(ours):
    statics = ours.dataset.static[:, ours.spec.statics.index("log_admissions_before") :]
    assert (statics == statics[0]).all()


def test_a_patient_is_in_one_split(ours):
    assert (ours.samples.groupby("subject_id").split.nunique() == 1).all()


def hours(rng, n_records=30):
    """Records of invented hours."""
    records = {}
    for number in range(1, n_records + 1):
        n = int(rng.integers(8, 20))
        frame = pd.DataFrame(np.nan, index=range(n), columns=list(COLUMNS))
        frame["HR"], frame["Age"], frame["Gender"] = rng.normal(80, 10, n).round(), 60 + number % 20, number % 2
        frame["Lactate"] = np.where(rng.random(n) < 0.3, rng.uniform(1, 5, n).round(1), np.nan)
        frame["Unit1"], frame["Unit2"], frame["HospAdmTime"], frame["ICULOS"] = 1, 0, -3.5, np.arange(1, n + 1)
        frame["SepsisLabel"] = ((number % 3 == 0) & (np.arange(n) >= 5)).astype(int)
        records[f"p{number:06d}"] = frame
    return records


def prepare_hours(records, folder):
    folder.mkdir()
    for name, frame in records.items():
        frame.to_csv(folder / f"{name}.psv", sep="|", index=False, na_rep="NaN")
    window = Window(series_hours=24)
    config = DataConfig(Physionet2019(str(folder)), window=window, split=SPLIT, prepare=Prepare(str(folder / "cache")))
    events = read_events(config)
    return prepare(config, events, find_samples(events, HourlySepsis()))


def test_an_hour_sees_itself_and_nothing_of_any_later_hour_nor_any_label(tmp_path):
    records = hours(np.random.default_rng(4))
    ours = prepare_hours(records, tmp_path / "ours")
    assert not any("sepsis" in channel.name for channel in ours.spec.channels)
    cut = 5
    rng = np.random.default_rng(5)
    changed = {}
    for name, frame in records.items():
        after = cut < frame.ICULOS
        frame = frame.copy()
        frame.loc[after, "HR"] += 40
        frame.loc[after, "Lactate"] = rng.uniform(6, 9, after.sum()).round(1)
        frame["SepsisLabel"] = ((int(name[1:]) % 3 == 1) & (frame.ICULOS >= 6)).astype(int)
        changed[name] = frame
    theirs = prepare_hours(changed, tmp_path / "changed")
    at = (ours.samples.prediction_time.iloc[0].normalize() + pd.Timedelta(hours=cut)).to_datetime64()
    for subject in range(1, 31):
        found = [
            int(np.flatnonzero((p.samples.subject_id == subject) & (p.samples.prediction_time == at))[0])
            for p in (ours, theirs)
        ]
        one, two = sight(ours, found[0]), sight(theirs, found[1])
        one[0].pop("row"), two[0].pop("row")
        same(one, two)
        assert one[1]["heart_rate__last"] == records[f"p{subject:06d}"].HR[cut - 1]  # the very hour is seen
    assert set(ours.samples["label_sepsis_2019"]) == {0.0, 1.0}
    assert (ours.samples.groupby("subject_id").split.nunique() == 1).all()
