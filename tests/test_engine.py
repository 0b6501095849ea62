import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ehrdl.engine.cache import cached
from ehrdl.engine.database import connect
from ehrdl.engine.files import building, digest, fingerprint, read_json, write_json
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError

ROOT = Path(__file__).parents[1]
MIB = 1 << 20

BUILDER = """
import sys, time
from pathlib import Path
from ehrdl.engine.cache import Prepare, cached

def build(folder):
    (folder / "data").write_text("half")
    with open("built", "a") as log:
        log.write("x")
    time.sleep(float(sys.argv[1]))
    (folder / "data").write_text("whole")

folder = cached(Prepare(cache="cache"), "step", {"a": 1}, build)
print((folder / "data").read_text())
"""


def start(tmp_path, seconds):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILDER, str(seconds)]
    return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(path):
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


@pytest.fixture
def prepare(tmp_path):
    return Prepare(cache=str(tmp_path / "cache"))


def test_a_step_is_built_once_for_a_key(prepare):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "data").write_text("x")

    first = cached(prepare, "step", {"a": 1}, build)
    assert cached(prepare, "step", {"a": 1}, build) == first
    assert (first / "data").read_text() == "x"
    assert read_json(first / "key.json") == {"a": 1}
    assert cached(prepare, "step", {"a": 2}, build) != first
    assert cached(prepare, "other", {"a": 1}, build) != first
    assert len(built) == 3


def test_a_build_that_raises_leaves_nothing(prepare):
    def build(folder):
        (folder / "data").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached(prepare, "step", {}, build)
    assert [path.name for path in Path(prepare.cache).iterdir()] == [".locks"]


def test_what_a_killed_process_left_half_written_is_never_read(tmp_path):
    process = start(tmp_path, 60)
    wait_for(tmp_path / "built")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    halves = [path.name for path in (tmp_path / "cache").iterdir() if path.name != ".locks"]
    assert halves and all(name.startswith(".") for name in halves)

    def build(folder):
        assert not any(folder.iterdir())
        (folder / "data").write_text("whole")

    folder = cached(Prepare(cache=str(tmp_path / "cache")), "step", {"a": 1}, build)
    assert (folder / "data").read_text() == "whole"
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".locks", folder.name]


def test_two_processes_wait_for_each_other_and_build_once(tmp_path):
    first = start(tmp_path, 0.5)
    wait_for(tmp_path / "built")
    second = start(tmp_path, 0.5)
    assert [process.communicate(timeout=30)[0].strip() for process in (first, second)] == ["whole", "whole"]
    assert (tmp_path / "built").read_text() == "x"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "run") as part:
        (part / "a").write_text("x")
        assert not (tmp_path / "run").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_it_does_not_have(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"auroc": number})
    assert list(tmp_path.iterdir()) == []


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None, "ä"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None, "ä"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_fingerprint_sees_the_ends_the_size_and_the_time_of_a_file(tmp_path):
    file = tmp_path / "labevents.csv"
    body = bytearray(3 * MIB)
    prints = set()
    for place in (None, 0, 3 * MIB - 1):
        if place is not None:
            body[place] ^= 1
        file.write_bytes(body)
        os.utime(file, ns=(1, 1))
        prints.add(digest(fingerprint(file)))
    os.utime(file, ns=(2, 2))
    prints.add(digest(fingerprint(file)))
    assert len(prints) == 4


def test_a_full_fingerprint_sees_every_byte_and_not_the_time(tmp_path):
    file = tmp_path / "labevents.csv"
    body = bytearray(3 * MIB)
    file.write_bytes(body)
    fast, full = fingerprint(file), fingerprint(file, "full")
    stamp = file.stat().st_mtime_ns
    body[MIB + 5] ^= 1
    file.write_bytes(body)
    os.utime(file, ns=(stamp, stamp))
    assert fingerprint(file) == fast
    changed = fingerprint(file, "full")
    assert changed != full
    os.utime(file, ns=(1, 1))
    assert fingerprint(file, "full") == changed


def test_a_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": (2,), "a": 1}) != digest({"a": 1, "b": [3]})


def test_duckdb_works_under_its_memory_limit_and_removes_what_it_spilled(tmp_path):
    with connect(Prepare(memory_gb=0.25), tmp_path) as con:
        assert con.sql("SELECT current_setting('memory_limit')").fetchall() == [("238.4 MiB",)]
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "value"), [("memory_gb", 0), ("workers", 0), ("n_shards", -1), ("verify", "none")])
def test_an_impossible_option_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError, match=rf"data\.prepare\.{key}: '?{value}"):
        Prepare(**{key: value})
