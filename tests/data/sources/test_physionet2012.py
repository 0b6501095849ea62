"""The reader of PhysioNet/CinC 2012, on record sets that a test writes down line by line."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from ehrdl.clinical import concepts
from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import load_concepts, open_series, read_events
from ehrdl.engine.options import Prepare
from ehrdl.errors import SchemaError
from ehrdl.sources.physionet2012.source import Physionet2012

HEADER = "Time,Parameter,Value"
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
ADMITTED = pd.Timestamp("2012-01-01")


def record(number, *lines, age=54, gender=0, height=-1, unit=4, weight=-1):
    """A record's text: its descriptors, then `07:30,HR,80` and so on."""
    first = {"RecordID": number, "Age": age, "Gender": gender, "Height": height, "ICUType": unit, "Weight": weight}
    return "\n".join([HEADER, *(f"00:00,{name},{value}" for name, value in first.items()), *lines]) + "\n"


class Challenge:
    """A folder of the challenge, and what the reader makes of it."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        root.mkdir()

    def files(self, records, letter):
        return {f"set-{letter}/{number}.txt": text.encode() for number, text in records.items()}

    def archive(self, records, letter="a", ending=".tar.gz"):
        """Write the records as an archive."""
        path = self.root / f"set-{letter}{ending}"
        if ending == ".zip":
            with zipfile.ZipFile(path, "w") as packed:
                for name, body in self.files(records, letter).items():
                    packed.writestr(name, body)
            return path
        with tarfile.open(path, "w" if ending == ".tar" else "w:gz") as packed:
            folder = tarfile.TarInfo(f"set-{letter}")
            folder.type = tarfile.DIRTYPE
            packed.addfile(folder)
            for name, body in self.files(records, letter).items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                packed.addfile(info, io.BytesIO(body))
        return path

    def folder(self, records, letter="a"):
        """Write the records as an unpacked archive."""
        for name, body in self.files(records, letter).items():
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_bytes(body)
        return self.root / f"set-{letter}"

    def outcomes(self, *rows, letter="a", header=OUTCOMES):
        """Rows are (record, length of stay [d], died) and, where they are known, the days until death."""
        lines = [f"{number},6,1,{days},{(*rest, -1)[0]},{died}" for number, days, died, *rest in rows]
        (self.root / f"Outcomes-{letter}.txt").write_text("\n".join([header, *lines]) + "\n")

    def config(self):
        return DataConfig(Physionet2012(str(self.root)), prepare=Prepare(cache=str(self.cache), n_shards=2))

    def read(self):
        """EVENTS, and the counts of the first set."""
        config = self.config()
        folder = read_events(config)
        self.facts = json.loads((folder / "source.json").read_text())
        self.series = open_series(config, folder, load_concepts(config))
        with duckdb.connect() as con:
            frame = con.execute(f"FROM read_parquet('{folder}/data/*.parquet') ORDER BY ALL").df()
        return frame

    def counts(self, name="set-a"):
        return self.facts["tables"][name]

    def values(self, channel):
        """(record, hours after admission, value) of what models may see of a channel."""
        store = self.series
        who = np.repeat(store.subjects, np.diff(store.offsets))
        own = np.asarray(store.channel) == store.channel_id(channel)
        hours = (np.asarray(store.time)[own] - ADMITTED.value // 1000) / 3.6e9
        found = zip(
            who[own].tolist(), hours.round(3).tolist(), np.asarray(store.value)[own].round(3).tolist(), strict=True
        )
        return [(subject, hour, pytest.approx(value, abs=1e-3)) for subject, hour, value in found]


@pytest.fixture
def challenge(tmp_path):
    return Challenge(tmp_path / "challenge", tmp_path / "cache")


TWO = {
    132539: record(132539, "00:07,HR,73", "10:37,K,4.5", "48:00,HR,80"),
    132540: record(132540, "01:00,MechVent,1", age=90, gender=1, height=175.3, unit=2, weight=76),
}


def codes(frame, subject):
    return sorted(frame.code[frame.subject_id == subject])


def test_a_record_becomes_a_stay_with_its_measurements(challenge):
    challenge.archive(TWO)
    challenge.outcomes((132539, 5, 0), (132540, 8, 1))
    frame = challenge.read()
    assert codes(frame, 132539) == [
        *["ADMISSION//ICU", "DISCHARGE//ALIVE", "GENDER//F", "ICU_IN//Surgical ICU", "MEDS_BIRTH"],
        *["P12//HR", "P12//HR", "P12//ICUType//4", "P12//K"],
    ]
    assert codes(frame, 132540) == [
        *["ADMISSION//ICU", "DISCHARGE//DIED", "GENDER//M", "ICU_IN//Cardiac Surgery Recovery Unit", "MEDS_BIRTH"],
        *["P12//Height", "P12//ICUType//2", "P12//MechVent", "P12//Weight"],
    ]
    assert (frame.available_time.dropna() == frame.time.dropna()).all()
    stays = frame[~frame.code.isin(["MEDS_BIRTH", "GENDER//F", "GENDER//M"])]
    assert (stays.encounter_id == stays.subject_id).all()
    assert frame[frame.code == "MEDS_BIRTH"].time.tolist() == [pd.Timestamp("1958-01-01"), pd.Timestamp("1922-01-01")]
    assert frame.time[frame.code.str.startswith("GENDER")].isna().all()
    ends = frame[frame.code.str.startswith("DISCHARGE")].set_index("subject_id").time - ADMITTED
    assert (ends / pd.Timedelta(days=1)).to_dict() == {132539: 5.0, 132540: 8.0}


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar", ".zip", ""])
def test_an_archive_of_any_kind_and_an_unpacked_folder_give_the_same_events(challenge, tmp_path, ending):
    other = Challenge(tmp_path / "other", tmp_path / "cache")
    challenge.archive(TWO)
    _ = other.archive(TWO, ending=ending) if ending else other.folder(TWO)
    assert other.read().equals(challenge.read())


def test_a_folder_is_read_anew_when_a_record_in_it_changes(challenge):
    folder = challenge.folder(TWO)
    before = challenge.read()
    (folder / "132539.txt").write_text(record(132539, "00:07,HR,73", "10:37,K,4.5", "48:00,HR,811"))
    assert not challenge.read().equals(before)


def test_minus_one_and_an_empty_cell_are_missing_and_counted(challenge):
    challenge.archive(
        {1: record(1, "01:00,HR,-1", "02:00,HR,", "03:00,HR,nan", "04:00,HR,80", gender=-1, age=-1, unit=-1)}
    )
    frame = challenge.read()
    assert codes(frame, 1) == ["ADMISSION//ICU", "ICU_IN//Unknown", "P12//HR"]
    assert challenge.values("heart_rate") == [(1, 4.0, 80)]
    assert challenge.counts()["missing"] == {"HR": 3, "Age": 1, "Gender": 1, "Height": 1, "ICUType": 1, "Weight": 1}


def test_values_that_cannot_be_are_no_input_and_counted_by_their_variable(challenge, capsys):
    impossible = [
        "01:00,HR,0",
        "01:00,SysABP,0",
        "01:00,pH,0.4",
        "01:00,Temp,-17.8",
        "01:00,K,22.9",
        "01:00,Urine,19990",
    ]
    possible = ["02:00,HR,300", "02:00,SysABP,1", "02:00,pH,6.3", "02:00,Temp,45", "02:00,K,0.5", "02:00,Urine,0"]
    challenge.archive({1: record(1, *impossible, *possible, age=130, weight=0)})
    challenge.read()
    assert challenge.counts()["implausible"] == dict.fromkeys(
        ["HR", "SysABP", "pH", "Temp", "K", "Urine", "Age", "Weight"], 1
    )
    # The store left out the same ones; an age is none of its values.
    assert sum(count["implausible"] for count in challenge.series.counts.values()) == 7
    assert challenge.values("temperature") == [(1, 2.0, 45)]
    assert "8 values are outside their plausible range (concepts.csv) and no input: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "channel", "value"),
    [
        ("00:00,Height,1.8", "height", 180),  # metres
        ("00:00,Height,66", "height", 167.64),  # inches
        ("00:00,Height,431.8", "height", 170),  # centimetres that were multiplied by 2.54
        ("00:00,Height,175.3", "height", 175.3),
        ("01:00,Temp,98.6", "temperature", 37),  # Fahrenheit
        ("01:00,pH,735", "ph", 7.35),
        ("01:00,WBC,12500", "white_blood_cells", 12.5),  # per microlitre
        ("01:00,FiO2,0.4", "fio2", 40),
        ("01:00,FiO2,40", "fio2", 40),
    ],
)
def test_a_value_that_is_plausible_in_one_other_unit_alone_is_read_in_that(challenge, line, channel, value):
    challenge.archive({1: record(1, line).replace("00:00,Height,-1\n", "")})
    challenge.read()
    assert [found for _, _, found in challenge.values(channel)] == [value]
    usual = line in ("00:00,Height,175.3", "01:00,FiO2,0.4")
    assert sum(challenge.counts().get("converted", {}).values()) == (not usual)
    assert "implausible" not in challenge.counts()


def test_a_line_without_a_parameter_is_left_out_and_counted_and_the_rest_is_read(challenge, capsys):
    challenge.archive({1: record(1, "01:00,,-1", "01:10,,", ",,", "01:20,HR,80")})
    challenge.read()
    assert challenge.counts()["lines_without_parameter"] == 3
    assert challenge.values("heart_rate") == [(1, 1.333, 80)]
    assert "3 lines name no parameter and are left out" in capsys.readouterr().err


def test_a_parameter_that_nobody_knows_is_kept_as_an_event_and_is_no_input(challenge, capsys):
    challenge.archive({1: record(1, "01:00,HR,80", "01:00,SpO2,97")})
    frame = challenge.read()
    assert "P12//SpO2" in codes(frame, 1)
    assert "1 values of unknown parameters are no input: SpO2 (1)" in capsys.readouterr().err


def test_a_record_without_any_measurement_is_kept_and_counted(challenge):
    challenge.archive(
        {
            1: record(1),
            2: record(2, height=180),
            3: record(3, weight=75),
            4: HEADER + "\n",
            5: TWO[132539].replace("132539", "5"),
        }
    )
    frame = challenge.read()
    assert sorted(frame.subject_id.unique()) == [1, 2, 3, 4, 5]
    assert challenge.counts()["records_without_measurement"] == 3  # the weight of the third is one
    assert codes(frame, 4) == ["ADMISSION//ICU", "ICU_IN//Unknown"]


def test_a_variable_twice_in_a_minute_is_kept_twice_and_counted(challenge):
    challenge.archive(
        {
            1: record(1, "01:00,Urine,280", "01:00,Urine,90", "01:01,Urine,90", "01:01,HR,90"),
            2: record(2, "01:00,Urine,90"),
        }
    )
    challenge.read()
    assert challenge.counts()["repeated_rows"] == 1
    assert challenge.values("urine_output")[:2] == [(1, 1.0, 90), (1, 1.0, 280)]


def test_ages_at_the_cap_are_counted(challenge):
    challenge.archive({1: record(1, age=90), 2: record(2, age=89), 3: record(3, age=90)})
    challenge.read()
    assert challenge.counts()["ages_at_the_cap"] == 2


def test_the_first_minute_lies_inside_a_window_of_48_hours_and_minute_2880_is_the_last(challenge):
    """A window is open where it begins, so what is stamped 00:00 stands one second later."""
    challenge.archive({1: record(1, "00:00,HR,70", "48:00,HR,80", "48:01,HR,90", weight=80)})
    frame = challenge.read()
    hours = (frame[frame.code == "P12//HR"].time - ADMITTED) / pd.Timedelta(seconds=1)
    assert hours.tolist() == [1, 48 * 3600, 48 * 3600 + 60]
    assert challenge.values("weight") == [(1, 0.0, 80)]
    assert frame[frame.code.str.startswith("ICU_IN")].time.tolist() == [ADMITTED]
    assert challenge.counts()["after_48_h"] == 1


def test_a_descriptor_of_later_is_left_alone(challenge):
    challenge.archive({1: record(1, "10:00,ICUType,1", "10:00,Age,20", "10:00,Gender,1", unit=3)})
    assert codes(challenge.read(), 1) == [
        "ADMISSION//ICU",
        "GENDER//F",
        "ICU_IN//Medical ICU",
        "MEDS_BIRTH",
        "P12//ICUType//3",
    ]


def test_sets_without_outcomes_are_read_and_absent_sets_are_said(challenge, capsys):
    challenge.archive(TWO, "b")
    frame = challenge.read()
    assert not frame.code.str.startswith("DISCHARGE").any()
    said = capsys.readouterr().err
    assert "set-a, set-c: not under" in said
    assert (
        "set-b: Outcomes-b.txt is not under" in said and "2 records have no outcome; their labels are unknown" in said
    )


def test_all_three_sets_are_read_together(challenge):
    for place, letter in enumerate("abc"):
        challenge.archive({100 + place: record(100 + place, "01:00,HR,80")}, letter)
        challenge.outcomes((100 + place, 5, place % 2), letter=letter)
    frame = challenge.read()
    assert sorted(frame.subject_id.unique()) == [100, 101, 102]
    assert set(challenge.facts["tables"]) == {"set-a", "set-b", "set-c"}


def test_the_end_of_a_stay_is_never_within_the_window(challenge):
    """Days are whole: one that ends on paper after two days, or at an unknown time, still lasted past 48:00."""
    challenge.archive({number: record(number) for number in (1, 2, 3)})
    challenge.outcomes((1, 2, 0), (2, -1, 1), (3, 3, 0))
    frame = challenge.read().set_index("subject_id")
    ends = (frame[frame.code.str.startswith("DISCHARGE")].time - ADMITTED) / pd.Timedelta(hours=1)
    assert ends.round(3).to_dict() == {1: 48.017, 2: 48.017, 3: 72.0}


def test_a_death_is_of_the_patient_at_its_day_and_never_within_the_window(challenge):
    challenge.archive({number: record(number) for number in (1, 2, 3, 4)})
    challenge.outcomes((1, 5, 1, 4), (2, 5, 0, 575), (3, 5, 1, 1), (4, 5, 0))
    frame = challenge.read()
    deaths = frame[frame.code == "MEDS_DEATH"].set_index("subject_id")
    hours = (deaths.time - ADMITTED) / pd.Timedelta(hours=1)
    assert hours.round(3).to_dict() == {1: 96.0, 2: 575 * 24.0, 3: 48.017}
    assert deaths.encounter_id.isna().all() and (deaths.available_time == deaths.time).all()
    assert (challenge.counts()["deaths"], challenge.counts()["deaths_at_any_time"]) == (2, 3)


def test_outcomes_without_survival_are_read(challenge):
    challenge.archive({1: record(1)})
    (challenge.root / "Outcomes-a.txt").write_text("RecordID,Length_of_stay,In-hospital_death\n1,5,1\n")
    assert codes(challenge.read(), 1)[:2] == ["ADMISSION//ICU", "DISCHARGE//DIED"]
    assert challenge.counts()["deaths_at_any_time"] == 0


def test_outcomes_of_records_that_are_not_there_are_counted(challenge):
    challenge.archive(TWO)
    challenge.outcomes((132539, 5, 0), (132540, 8, 1), (132541, 8, 1))
    challenge.read()
    assert (challenge.counts()["outcomes_without_record"], challenge.counts()["deaths"]) == (1, 1)


def test_an_archive_is_read_where_its_folder_lies_beside_it(challenge, capsys):
    challenge.archive(TWO)
    challenge.folder({132539: TWO[132539]})
    assert challenge.read().subject_id.nunique() == 2
    assert "set-a.tar.gz: is read; set-a beside it is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("07:00,HR", r"132541\.txt: line 8: '07:00,HR' is not Time,Parameter,Value"),
        ("07:00,HR,80,1", r"132541\.txt: line 8: '07:00,HR,80,1' is not Time,Parameter,Value"),
        ("07:00,HR,eighty", r"132541\.txt: line 8: 'eighty' is no number"),
        ("07:00,HR,inf", r"132541\.txt: line 8: 'inf' is no number"),
        ("07:60,HR,80", r"132541\.txt: line 8: '07:60' is no time after admission, such as 07:30"),
        ("7,HR,80", r"132541\.txt: line 8: '7' is no time after admission"),
    ],
)
def test_a_bad_line_is_named_with_its_archive_file_and_number(challenge, line, says):
    challenge.archive({**TWO, 132541: record(132541, line, "08:00,HR,80")})
    with pytest.raises(SchemaError, match=rf"set-a\.tar\.gz: set-a/{says}"):
        challenge.read()
    assert not list(challenge.cache.glob("events-*/data"))


def test_line_numbers_count_empty_lines_and_lines_without_a_parameter(challenge):
    challenge.archive({1: record(1, "01:00,,", "", "02:00,HR,80", "03:00,HR,x")})
    with pytest.raises(SchemaError, match="line 11: 'x' is no number"):
        challenge.read()


def test_other_line_ends_and_a_missing_last_one_are_read(challenge):
    challenge.archive({1: "\ufeff" + TWO[132539].replace("132539", "1").replace("\n", "\r\n").rstrip()})
    challenge.read()
    assert challenge.values("heart_rate") == [(1, 0.117, 73), (1, 48.0, 80)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "Time;Parameter;Value\n00:00;RecordID;1\n",
            r"set-a/1\.txt: line 1: 'Time;Parameter;Value' is not Time,Parameter,Value",
        ),
        ("", r"set-a/1\.txt: line 1: '' is not Time,Parameter,Value"),
        (record(2), r"1\.txt: its RecordID is 2; the file's name and its record must agree"),
    ],
)
def test_a_file_that_is_no_record_is_named(challenge, text, says):
    challenge.archive({1: text})
    with pytest.raises(SchemaError, match=says):
        challenge.read()


def test_a_record_in_two_sets_is_refused(challenge):
    challenge.archive(TWO)
    challenge.archive({132540: TWO[132540]}, "c")
    with pytest.raises(
        SchemaError, match="set-c: record 132540 stands in set-a too; one patient would be counted twice"
    ):
        challenge.read()


def test_a_damaged_archive_is_one_clear_line(challenge):
    path = challenge.archive(
        {
            number: record(number, *(f"{h:02}:{m:02},HR,{h + m}" for h in range(40) for m in range(60)))
            for number in range(20)
        }
    )
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(2000)
    for bytes_ in (whole[: len(whole) // 2], whole[:4000] + noise + whole[6000:], noise, b"", gzip.compress(noise)):
        path.write_bytes(bytes_)
        with pytest.raises(SchemaError, match=r"set-a\.tar\.gz: (is damaged, or no archive|holds no record)"):
            challenge.read()


def test_no_set_no_folder_and_an_empty_archive_are_told_apart(challenge):
    with pytest.raises(
        SchemaError, match=r"holds none of set-a, set-b, set-c \(looked for \.tar\.gz, \.tgz, \.tar, \.zip, an unpacked"
    ):
        challenge.read()
    challenge.archive({})
    with pytest.raises(SchemaError, match=r"set-a\.tar\.gz: holds no record, such as 132539\.txt"):
        challenge.read()
    with pytest.raises(SchemaError, match=r"data\.source\.root: the folder .*nowhere does not exist"):
        Physionet2012(str(challenge.root / "nowhere")).fingerprint()


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([(132539, 5, 0), (132539, 5, 0)], OUTCOMES, "line 3: record 132539 stands in it twice"),
        ([(132539, 5, 2)], OUTCOMES, "line 2: In-hospital_death is 2; expected 0 or 1"),
        ([(132539, "x", 0)], OUTCOMES, "line 2: '132539,6,1,x,-1,0' is no row of RecordID"),
        (
            [],
            "RecordID,Length_of_stay",
            "line 1: column In-hospital_death is missing; the file has RecordID, Length_of_stay",
        ),
    ],
)
def test_bad_outcomes_are_named_with_their_line(challenge, rows, header, says):
    challenge.archive(TWO)
    challenge.outcomes(*rows, header=header)
    with pytest.raises(SchemaError, match=rf"Outcomes-a\.txt: {says}"):
        challenge.read()


def test_its_channels_are_those_of_mimic_where_they_measure_the_same():
    own, mimic = (concepts.load(file).channels for file in (Physionet2012.concepts_file(), None))
    known = {channel.name: channel for channel in mimic}
    shared = [channel for channel in own if channel.name in known]
    assert len(shared) == 35 and len(own) == 42
    for channel in shared:
        assert (channel.unit, channel.kind, channel.category) == (
            known[channel.name].unit,
            known[channel.name].kind,
            known[channel.name].category,
        )
