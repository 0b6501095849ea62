"""A split from files of record names, on samples made by hand and on the synthetic hospital."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ehrdl.data.apply import Fitted, apply
from ehrdl.data.prepare import prepare
from ehrdl.data.temporal_split import describe_split, split_samples
from ehrdl.errors import ConfigError, LeakageError, SchemaError
from ehrdl.schema import HELD_OUT, SPLITS, TRAIN, TUNING
from ehrdl.splits.files import read_split_files
from ehrdl.splits.subjects import Split


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in ({"train": "1\n2\n", "tuning": "3\n", "held_out": "4\n"} | files).items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def events(build, tmp_path):
    """EVENTS of the subjects 1 to 6."""
    return build.events(tmp_path / "events", [(subject, 0.0, "X", None, None, 0.0) for subject in range(1, 7)])


def numbered(subjects):
    rows = {"sample_id": np.arange(len(subjects)), "subject_id": subjects, "label": 0.0}
    return pd.DataFrame(rows)


def split(folder, events, subjects=(1, 2, 3, 4), subject_of=int):
    return split_samples(numbered(list(subjects)), Split(files=str(folder)), events, subject_of)


def test_each_sample_stands_where_the_file_of_its_record_says(tmp_path, events):
    left, facts = split(write(tmp_path / "s"), events, [1, 1, 2, 3, 4])
    assert left.split.tolist() == [TRAIN, TRAIN, TRAIN, TUNING, HELD_OUT]
    assert facts["listed"] == {"train": 2, "tuning": 1, "held_out": 1}
    assert describe_split(facts) == f"split of {tmp_path / 's'}: train 2, tuning 1, held_out 1 records"


def test_empty_lines_spaces_windows_ends_and_a_byte_order_mark_are_no_names(tmp_path, events):
    folder = write(tmp_path / "s", train="\ufeff1\r\n\r\n  2 \r\n", held_out="4")
    assert split(folder, events)[0].split.tolist() == [TRAIN, TRAIN, TUNING, HELD_OUT]


def test_samples_in_no_file_are_left_out_numbered_anew_counted_and_said(tmp_path, events):
    left, facts = split(write(tmp_path / "s"), events, [1, 2, 3, 4, 5, 6, 6])
    assert (left.subject_id.tolist(), left.sample_id.tolist()) == ([1, 2, 3, 4], [0, 1, 2, 3])
    assert facts["dropped_in_no_file"] == 3
    assert describe_split(facts).endswith("; 3 samples stand in no file and are left out")


def test_records_that_are_not_in_the_data_or_not_in_the_cohort_are_counted_apart_and_said(tmp_path, events):
    left, facts = split(write(tmp_path / "s", train="1\n2\n5\n132539\n132540\n"), events)
    assert len(left) == 4
    assert (facts["unknown_records"], facts["first_unknown"], facts["records_without_sample"]) == (2, "132539", 1)
    assert "; 2 of them are not in the data, such as 132539; 1 are not in the cohort" in describe_split(facts)


def test_a_source_says_which_subject_a_name_is(tmp_path, events):
    folder = write(tmp_path / "s", train="p000001\np000002\n", tuning="p000003", held_out="p000004")
    left, _ = split(folder, events, subject_of=lambda name: int(name.removeprefix("p")))
    assert left.split.tolist() == [TRAIN, TRAIN, TUNING, HELD_OUT]


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"held_out": "4\n2\n"}, LeakageError, r"held_out\.txt: line 2: record 2 stands in train\.txt, line 2, too"),
        ({"train": "1\n2\n\n1\n"}, ConfigError, r"train\.txt: line 4: record 1 stands in line 1 already"),
        ({"tuning": "RecordID\n3\n"}, ConfigError, r"tuning\.txt: line 1: 'RecordID' is not the name of a record"),
        ({"tuning": "\n"}, ConfigError, r"tuning\.txt: lists no record"),
    ],
)
def test_a_list_that_is_no_split_is_refused_with_its_line(tmp_path, files, error, says):
    with pytest.raises(error, match=says):
        read_split_files(str(write(tmp_path / "s", **files)), int)


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.split\.files: the folder .*nowhere does not exist"):
        read_split_files(str(tmp_path / "nowhere"), int)
    folder = write(tmp_path / "s")
    (folder / "tuning.txt").unlink()
    with pytest.raises(ConfigError, match=r"data\.split\.files: .*tuning\.txt is missing"):
        read_split_files(str(folder), int)


def test_a_split_that_leaves_a_part_empty_is_refused(tmp_path, events):
    folder = write(tmp_path / "s", tuning="5\n132539\n")
    says = r"tuning\.txt: none of its 2 records has a sample here \(1 of them are in the data\)"
    with pytest.raises(SchemaError, match=says):
        split(folder, events)


def test_the_files_decide_alone_whatever_kind_the_config_has(tmp_path, events):
    folder = write(tmp_path / "s")
    for other in (
        {"kind": "folds", "n_folds": 5, "fold": 1},
        {"kind": "source"},
        {"kind": "temporal", "cut_year": 2017},
    ):
        left, _ = split_samples(numbered([1, 2, 3, 4]), Split(files=str(folder), **other), events)
        assert left.split.tolist() == [TRAIN, TRAIN, TUNING, HELD_OUT]


def by_files(hospital, folder, held_out_last):
    """The hospital's config with a split by files: the last of its subjects are held out, and one stands in none."""
    subjects = hospital.result.samples.subject_id.unique().tolist()
    subjects.pop(5)
    train, tuning, held_out = subjects[:-120], subjects[-120:-60], subjects[-60:]
    if not held_out_last:
        tuning, held_out = held_out, tuning
    lists = {"train": train, "tuning": tuning, "held_out": held_out}
    write(folder, **{name: "\n".join(map(str, ids)) for name, ids in lists.items()})
    return replace(hospital.config, split=Split(files=str(folder))), lists


def test_a_run_takes_its_split_from_the_files_and_says_whom_it_leaves_out(hospital, tmp_path, capsys):
    config, lists = by_files(hospital, tmp_path / "s", True)
    prepared = prepare(config, hospital.events, hospital.result)
    for name in SPLITS:
        assert set(prepared.samples.subject_id[prepared.samples.split == name]) == set(lists[name])
    assert "stand in no file and are left out" in capsys.readouterr().err
    facts = prepared.facts["data"]["split"]
    assert facts["kind"] == "files" and len(facts["sha256"]["train"]) == 64


def test_other_lists_in_the_same_folder_fit_other_scalers_and_another_tokenizer(hospital, tmp_path):
    first = prepare(by_files(hospital, tmp_path / "s", True)[0], hospital.events, hospital.result)
    config, lists = by_files(hospital, tmp_path / "s", False)
    moved = [*lists["train"][60:], *lists["held_out"]], lists["train"][:60]
    for name, ids in zip(("train", "held_out"), moved, strict=True):
        (tmp_path / "s" / f"{name}.txt").write_text("\n".join(map(str, ids)), encoding="utf-8")
    second = prepare(config, hospital.events, hospital.result)
    assert second.spec.channels != first.spec.channels
    assert second.tokenizer != first.tokenizer


def test_predicting_on_the_same_data_keeps_the_files_split_and_on_other_data_needs_no_file(hospital, tmp_path):
    config, _ = by_files(hospital, tmp_path / "s", True)
    prepared = prepare(config, hospital.events, hospital.result)
    again, _ = apply(
        config, hospital.events, hospital.result, Fitted(prepared.spec, prepared.tokenizer, hospital.events.name)
    )
    assert again.samples.equals(prepared.samples)
    gone = replace(config, split=Split(files=str(tmp_path / "gone")))
    new, _ = apply(
        gone, hospital.events, hospital.result, Fitted(prepared.spec, prepared.tokenizer, "events-elsewhere")
    )
    assert set(new.samples.split) == {HELD_OUT}
