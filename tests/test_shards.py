"""Work is mapped over processes, or over a cluster, to the same bytes; whoever dies, nothing is lost."""

import contextlib
import functools
import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.notes.vocabulary import fit_tokenizer
from ehrdl.data.prepare import build_store, load_concepts, read_events
from ehrdl.data.prepare_notes import collect_notes, tokenized
from ehrdl.engine.options import Prepare
from ehrdl.engine.shards import map_shards
from ehrdl.errors import ConfigError, MissingExtraError, WorkerError
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import write_hospital

ROOT = Path(__file__).parents[1]


def test_shards_are_mapped_in_order_with_and_without_processes():
    assert map_shards(abs, [-3, 2, -1], Prepare(workers=1)) == [3, 2, 1]
    assert map_shards(abs, [-3, 2, -1], Prepare(workers=2)) == [3, 2, 1]


def test_a_worker_that_the_system_kills_is_one_line():
    def die(shard):  # inside the test, so that it travels by value: workers cannot import a module of tests
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"data\.prepare\.workers: one of 2 processes was killed.*run the same"):
        map_shards(die, [1, 2, 3], Prepare(workers=2))


COUNTED = """
import sys, time
from pathlib import Path
from ehrdl.engine.cache import Prepare
from ehrdl.engine.shards import Tally, map_shards

tally = Tally(Path(sys.argv[1]))

def count(shard):
    for _ in range(10):
        tally.add(1000)
        time.sleep(0.1)

map_shards(count, [1], Prepare(workers=1), description="read tables", tally=tally)
"""


def test_a_terminal_shows_rows_and_rows_a_second(tmp_path):
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", COUNTED, str(tmp_path)], env=environment, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while block := os.read(ours, 4096):
            shown += block
    os.close(ours)
    assert process.wait() == 0
    assert re.search(rb"read tables.*[1-9],000 rows", shown) and re.search(rb"[1-9][\d,]+ rows/s", shown)


SLOW = """
import os, sys, time
from pathlib import Path
from ehrdl.engine.cache import Prepare
from ehrdl.engine.shards import map_shards

def sleep(name):
    Path(name).write_text(str(os.getpid()))
    time.sleep(120)

if __name__ == "__main__":
    map_shards(sleep, ["a", "b"], Prepare(workers=2))
"""


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Or they would go on writing into the folder of the build that takes over."""
    (tmp_path / "slow.py").write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path, env=environment)
    workers = [wait_until(functools.partial(number_in, tmp_path / name)) for name in ("a", "b")]
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{worker}/cmdline").is_file() for worker in workers))


def number_in(path):
    return int(path.read_text() or 0) if path.is_file() else 0


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    root = tmp_path_factory.mktemp("good") / "hospital"
    write_hospital(root, n_patients=60, seed=2, progress=False)
    return root


def build(hospital, cache, **options):
    """Everything that is mapped, and the hash of every file that it left."""
    data = DataConfig(Mimic4(str(hospital)), prepare=Prepare(cache=str(cache), **options))
    events = read_events(data)
    build_store(data, events, load_concepts(data))
    collect_notes(data, events)
    tokenized(data, events, str(hospital.parent / "tokenizer"))
    return bytes_under(cache)


def bytes_under(cache):
    files = [path for path in sorted(cache.rglob("*")) if path.is_file() and path.parent.name != ".locks"]
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def alone(hospital, tmp_path_factory):
    """What one process makes of the hospital."""
    cache = tmp_path_factory.mktemp("alone")
    data = DataConfig(Mimic4(str(hospital)), prepare=Prepare(cache=str(cache)))
    events = read_events(data)
    from ehrdl.data.notes.store import open_notes

    opened = open_notes(collect_notes(data, events)[0])
    (hospital.parent / "tokenizer").mkdir()
    fit_tokenizer(opened, opened.subjects, 300, hospital.parent / "tokenizer")
    return build(hospital, cache)


def test_several_processes_write_the_bytes_of_one(hospital, alone, tmp_path):
    assert build(hospital, tmp_path / "cache", workers=2) == alone


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two worker processes of this machine."""
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_bytes(hospital, alone, cluster, tmp_path):
    assert build(hospital, tmp_path / "cache", engine="dask", scheduler=cluster.scheduler_address) == alone


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_loses_nothing(hospital, alone, cluster, tmp_path):
    cache = tmp_path / "cache"
    victim = next(iter(cluster.workers.values())).pid
    killed = []

    def kill():
        wait_until(lambda: list(cache.glob(".table-*.part")))
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    found = build(hospital, cache, engine="dask", scheduler=cluster.scheduler_address)
    thread.join()
    assert killed and found == alone


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(ConfigError, match=r"data\.prepare\.scheduler: tcp://127\.0\.0\.1:9 does not answer"):
        map_shards(abs, [1, 2], Prepare(engine="dask", scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("spark", "spark")])
def test_an_engine_that_is_not_installed_says_how_to_install_it(engine, extra, monkeypatch):
    for name in ("ray", "joblibspark"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{engine} is not installed; pip install 'ehrdl\[{extra}\]'"):
        map_shards(abs, [1, 2], Prepare(engine=engine))


def test_dask_needs_the_address_of_a_scheduler():
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(ConfigError, match=r"engine dask needs the address of a scheduler"):
        map_shards(abs, [1, 2], Prepare(engine="dask"))
