"""Tables are staged one by one: what has not changed is not read again, and what is not kept is freed."""

import os
import shutil

import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.prepare import read_events
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.sources.mimic4 import source as mimic4
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import write_hospital


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage") / "hospital"
    write_hospital(root, n_patients=40, seed=3, progress=False)
    return root


@pytest.fixture
def root(hospital, tmp_path):
    return shutil.copytree(hospital, tmp_path / "hospital")


def read(root, tmp_path, **options):
    return read_events(DataConfig(Mimic4(str(root)), prepare=Prepare(cache=str(tmp_path / "cache"), **options)))


def staged(tmp_path):
    return {path.name: path.stat().st_ino for path in (tmp_path / "cache").glob("table-*")}


def bytes_of(events):
    return {path.name: path.read_bytes() for path in (events / "data").iterdir()}


def test_a_table_that_has_not_changed_is_not_read_again(root, tmp_path):
    read(root, tmp_path)
    before = staged(tmp_path)
    os.utime(root / "hosp" / "labevents.csv.gz", ns=(1, 1))
    read(root, tmp_path)
    after = staged(tmp_path)
    assert before.items() <= after.items()
    assert [name.split("-")[1] for name in after.keys() - before.keys()] == ["hosp.labevents"]


def test_tables_that_need_the_stays_are_read_again_when_those_change(root, tmp_path):
    read(root, tmp_path)
    before = staged(tmp_path)
    os.utime(root / "hosp" / "admissions.csv.gz", ns=(1, 1))
    read(root, tmp_path)
    new = {name.split("-")[1] for name in staged(tmp_path).keys() - before.keys()}
    assert {"hosp.admissions", "hosp.diagnoses_icd", "hosp.patients"} <= new
    assert "hosp.labevents" not in new


def test_rows_that_are_not_kept_are_freed_and_events_are_the_same(root, tmp_path):
    kept = bytes_of(read(root, tmp_path))
    shutil.rmtree(tmp_path / "cache")
    freed = bytes_of(read(root, tmp_path, keep=False))
    assert staged(tmp_path) == {} and freed == kept


def test_a_disk_that_is_too_small_is_said_before_anything_is_read(root, tmp_path, monkeypatch):
    monkeypatch.setattr(mimic4, "_DISK_AFTER", 1e12)
    with pytest.raises(
        ConfigError, match=r"data\.prepare\.cache: about [\d.]+ GB of disk are needed under .*cache, [\d.]+ GB are free"
    ):
        read(root, tmp_path)
    assert [name for name in staged(tmp_path) if "labevents" in name] == []
    assert list((tmp_path / "cache").glob("*events-*")) == []
