"""Threads that wait for others let go of their core, in every library that has threads of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = ["sklearn.ensemble", "torch", "lightgbm", "xgboost"]


def policies(library, **environment):
    """What each OpenMP runtime says of itself when it is loaded, and what the processes that are started inherit."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    code = f"import os, ehrdl, {library}; print(os.environ['OMP_WAIT_POLICY'])"
    environment = own | {"OMP_DISPLAY_ENV": "verbose"} | environment
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line.split("'")[1] for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line]
    spins = [line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return done.stdout.strip(), set(told), set(spins)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_openmp_runtime_waits_passively(library):
    pytest.importorskip(library.split(".")[0])
    inherited, told, spins = policies(library)
    assert (inherited, told, spins) == ("PASSIVE", {"PASSIVE"}, {"0"})


def test_a_users_own_setting_is_left_alone():
    assert policies("torch", OMP_WAIT_POLICY="ACTIVE")[:2] == ("ACTIVE", {"ACTIVE"})
    assert policies("torch", GOMP_SPINCOUNT="77")[2] == {"77"}


@pytest.mark.slow
@pytest.mark.timed
def test_gradient_boosting_beside_two_busy_processes_takes_at_most_three_times_as_long(tmp_path):
    file = tmp_path / "threads.json"
    command = [
        sys.executable,
        "benchmarks/threads.py",
        "--fits",
        "gradient_boosting",
        "--runs",
        "3",
        "--json",
        str(file),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert json.loads(file.read_text())["gradient_boosting_ratio"] <= 3
