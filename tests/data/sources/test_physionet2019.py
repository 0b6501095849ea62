"""The reader of PhysioNet/CinC 2019 on hand-made records, trap by trap, and on the real ones where they are there."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical.concepts import load
from ehrdl.engine.options import Prepare
from ehrdl.errors import SchemaError
from ehrdl.events.writer import validate
from ehrdl.sources.physionet2019.files import COLUMNS, find_places, read_rows
from ehrdl.sources.physionet2019.source import Physionet2019

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("EHRDL_DATA", ROOT.parent / "shared" / "data")) / "physionet-2019"
FIRST = pd.Timestamp("2000-01-01")


def record(*hours, **every):
    """The text of a record: a dict an hour of what is known, and what is the same in all hours."""
    fixed = {"Age": 60, "Gender": 1, "Unit1": 1, "Unit2": 0, "HospAdmTime": -2.5} | every
    rows = [fixed | {"ICULOS": number, "SepsisLabel": 0} | hour for number, hour in enumerate(hours, 1)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.to_csv(sep="|", index=False, na_rep="NaN")


@pytest.fixture
def write(tmp_path):
    def make(records, folder="training_setA"):
        (tmp_path / "2019" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in records.items():
            (tmp_path / "2019" / folder / f"{name}.psv").write_text(text, encoding="utf-8")
        return tmp_path / "2019"

    return make


@pytest.fixture
def read(tmp_path):
    def run(root):
        out = tmp_path / f"events-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        facts = Physionet2019(str(root)).read(out, Prepare(cache=str(tmp_path / "cache"), workers=1))
        validate(out)
        with duckdb.connect() as con:
            return con.sql(f"SELECT * FROM '{out}/data/*.parquet' ORDER BY subject_id, time, code").df(), facts

    return run


def test_an_hour_becomes_facts_at_its_end_known_in_that_very_hour(write, read):
    events, _ = read(write({"p000007": record({"HR": 80}, {"HR": 90, "Lactate": 2.5, "SepsisLabel": 1})}))
    assert set(events.subject_id) == {7}
    rows = events[events.code.str.startswith("P19//HR")]
    assert rows.numeric_value.tolist() == [80, 90]
    assert rows.time.tolist() == rows.available_time.tolist() == [FIRST + pd.Timedelta(hours=h) for h in (1, 2)]
    at = events.set_index("code")
    assert at.time["P19//Lactate"] == FIRST + pd.Timedelta(hours=2)
    assert at.numeric_value["SEPSIS_LABEL"].tolist() == [0, 1]
    assert at.numeric_value["P19//ICULOS//h"].tolist() == [1, 2]


def test_the_patient_is_static_the_admission_earlier_and_the_unit_noted_every_hour(write, read):
    events, _ = read(write({"p000007": record({}, {}), "p000008": record({}, Gender=0, Unit1=0, Unit2=1)}))
    first = events[events.subject_id == 7].set_index("code")
    assert pd.isna(first.time["GENDER//M"])
    assert first.time["ADMISSION//ICU"] == FIRST - pd.Timedelta(hours=2.5)
    assert (FIRST - first.time["MEDS_BIRTH"]) / pd.Timedelta(days=365.25) == pytest.approx(60, abs=1e-6)
    assert len(first.loc[["P19//Unit//MICU"]]) == 2
    assert {"GENDER//F", "P19//Unit//SICU"} <= set(events[events.subject_id == 8].code)


def test_what_is_unknown_or_impossible_is_no_fact_and_is_counted(write, read, capsys):
    records = {
        "p000001": record({"HR": np.inf}, Unit1=np.nan, Unit2=np.nan, HospAdmTime=np.nan),
        "p000002": record({}, Age=-1, Gender=2),
        "p000003": record({}, Age=100),
    }
    events, facts = read(write(records))
    assert not events.code.str.startswith("P19//HR").any()
    assert not events[events.subject_id == 1].code.str.startswith(("P19//Unit", "ADMISSION")).any()
    assert not events[events.subject_id == 2].code.str.startswith(("GENDER", "MEDS_BIRTH")).any()
    counts = facts["tables"]["training_setA"]
    assert counts["implausible ages"] == 1 and counts["unknown sex"] == 1
    assert counts["ages at the cap of 100"] == 1 and counts["unknown HospAdmTime"] == 1
    assert "implausible ages (1)" in capsys.readouterr().err and facts["missing"] == []


def test_oxygen_in_percent_and_ionised_calcium_are_read_in_their_own_unit(write, read):
    hours = [{"FiO2": 40, "Calcium": 1.1}, {"FiO2": 0.4, "Calcium": 8.4}, {"FiO2": 4000, "Calcium": 27.9}]
    events, facts = read(write({"p000001": record(*hours)}))
    known = load(Physionet2019.concepts_file()).match(events.code.unique()).set_index("code")
    rows = events[events.code.str.contains("FiO2|Calcium")].join(known[["channel", "factor", "low", "high"]], on="code")
    value = rows.numeric_value * rows.factor
    kept = rows.assign(value=value)[(value >= rows.low.astype("float32")) & (value <= rows.high)]
    assert kept[kept.channel == "fio2"].value.tolist() == pytest.approx([0.4, 0.4])  # 4,000 % is left out
    assert kept[kept.channel == "calcium"].value.tolist() == pytest.approx([8.4, 27.9])
    assert kept[kept.channel == "calcium_ionized"].value.tolist() == pytest.approx([1.1])
    assert facts["tables"]["training_setA"]["Calcium below 3, read as ionised in mmol/L"] == 1


def test_every_column_of_the_challenge_has_a_channel_and_no_outcome_has_one():
    known = load(Physionet2019.concepts_file())
    measured = COLUMNS[: COLUMNS.index("Age")]
    assert len(known.match([f"P19//{name}" for name in measured])) == len(measured) == 34
    assert not len(known.match(["SEPSIS_LABEL"]))


def test_folders_and_archives_are_read_alike(write, read, tmp_path):
    texts = {"p000001": record({"HR": 80}, {"HR": 81}), "p100002": record({"HR": 90})}
    root = write(texts)
    expected, _ = read(root)
    for name in ("training_setA.tar.gz", "training_setA.zip"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        if name.endswith("zip"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                for record_name, text in texts.items():
                    archive.writestr(f"training/{record_name}.psv", text)
        else:
            with tarfile.open(folder / name, "w:gz") as archive:
                for record_name, text in texts.items():
                    member = tarfile.TarInfo(f"training/{record_name}.psv")
                    member.size = len(text.encode())
                    archive.addfile(member, io.BytesIO(text.encode()))
        pd.testing.assert_frame_equal(read(folder)[0], expected)
        pd.testing.assert_frame_equal(read(folder / name)[0], expected)


def test_sets_a_and_b_come_together_and_an_archive_beside_its_folder_is_not_read_twice(write, read, tmp_path):
    write({"p000001": record({"HR": 80})}, "training_setA")
    root = write({"p100001": record({"HR": 90})}, "training_setB")
    with zipfile.ZipFile(root / "training_setA.zip", "w") as archive:
        archive.writestr("p000001.psv", record({"HR": 80}))
    events, facts = read(root)
    assert set(events.subject_id) == {1, 100_001} and set(facts["tables"]) == {"training_setA", "training_setB"}


def test_line_ends_of_windows_and_an_empty_last_line_change_nothing(write, read):
    text = record({"HR": 80}, {"HR": 81})
    plain, _ = read(write({"p000001": text}))
    other, _ = read(write({"p000001": text.replace("\n", "\r\n") + "\r\n"}))
    pd.testing.assert_frame_equal(plain, other)


def test_a_record_without_labels_can_be_read(write, read):
    text = record({"HR": 80}).replace("|SepsisLabel", "").replace("|0\n", "\n")
    events, facts = read(write({"p000001": text}))
    assert "SEPSIS_LABEL" not in set(events.code) and facts["tables"]["training_setA"]["hours_without_label"] == 1


def test_a_stay_that_the_record_does_not_follow_from_its_start_keeps_its_hours(write, read):
    events, _ = read(write({"p000001": record({"ICULOS": 5}, {"ICULOS": 6})}))
    assert events[events.code == "P19//ICULOS//h"].time.dt.hour.tolist() == [5, 6]


def test_a_split_file_may_name_records_as_the_challenge_does():
    source = Physionet2019("anywhere")
    assert [source.subject_of(name) for name in ("p100001", "p000007.psv", "7")] == [100_001, 7, 7]
    with pytest.raises(ValueError, match="no record such as p100001"):
        source.subject_of("patient7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (record({"HR": "eighty"}), r"p000001\.psv: row 1, column HR: 'eighty' is not a number"),
        (record({}, {}).replace("|2|0\n", "|2\n"), r"p000001\.psv: row 2 has 40 cells, the header has 41"),
        (record({}).replace("Lactate", "Lactat"), r"p000001\.psv: column Lactate stands 0 times in the header"),
        (record({}).replace("|", ","), r"column HR stands 0 times in the header, not once; are its columns separated"),
        (record({"ICULOS": 2}, {"ICULOS": 2}), "record 1: row 2: ICULOS 2 is not after that of the row before"),
        (record({"ICULOS": np.nan}), "record 1: row 1: ICULOS nan is not an hour of a stay"),
        (record({}, {"SepsisLabel": 2}), "record 1: row 2: SepsisLabel is 2, not 0 or 1"),
    ],
)
def test_a_record_that_cannot_be_is_one_line(write, read, text, message):
    with pytest.raises(SchemaError, match=message) as error:
        read(write({"p000001": text, "p000002": record({})}))
    assert "\n" not in str(error.value)


def test_a_damaged_archive_a_folder_without_records_and_a_record_twice_are_one_line(write, tmp_path, read):
    with pytest.raises(SchemaError, match="does not exist; give the one of the "):
        find_places(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(SchemaError, match="holds no record of the challenge"):
        find_places(tmp_path / "none")
    (tmp_path / "none" / "set.tar.gz").write_bytes(b"no archive")
    with pytest.raises(SchemaError, match=r"set\.tar\.gz: is damaged, or no archive"):
        list(read_rows(find_places(tmp_path / "none")[0]))
    write({"p000001": record({})}, "training_setA")
    with pytest.raises(SchemaError, match=r"record 1 stands in .*copy too"):
        read(write({"p000001": record({})}, "copy"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"PhysioNet 2019 is not at {REAL}; set EHRDL_DATA")
def test_the_real_records_are_read_whole():
    rows = [block for place in find_places(REAL) for block in read_rows(place)]
    subject = np.concatenate([block.subject for block in rows])
    label = np.concatenate([block["SepsisLabel"] for block in rows])
    assert len(subject) == 232_783 and len(np.unique(subject)) == 6_181
    assert len(np.unique(subject[label == 1])) == 331
