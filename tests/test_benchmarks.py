"""The benchmarks run as their documentation says, print a table and write the numbers that it names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(tmp_path, name, *argv):
    """The numbers of a benchmark; what it prints names them all."""
    file = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *argv, "--json", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert all(key in done.stdout for key in found if key != "machine")
    return found


def test_build_counts_rows_memory_disk_and_tokens(tmp_path):
    found = run(tmp_path, "build", "--rows", "20000")
    assert abs(found["rows"] - 20_000) < 200
    assert found["rows_per_s"] == pytest.approx(found["rows"] / found["wall_s"], rel=0.1)
    assert found["peak_mb"] > 100 and found["disk_mb"] >= 1 and found["tokens_per_s"] > 0
    assert found["machine"]["cores"] >= 1


@pytest.mark.slow
def test_a_build_that_is_killed_ends_byte_for_byte_as_if_undisturbed(tmp_path):
    found = run(tmp_path, "crash", "--kills", "4", "--patients", "400")
    assert (found["kills"], found["equal"]) == (4, 4)
