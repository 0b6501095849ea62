"""Folders that are written to: refused before any work where they cannot be, filled whole or not at all."""

import os
import subprocess
import sys

import pytest

from ehrdl.engine.folders import check_writable, filling
from ehrdl.errors import ConfigError


def test_a_folder_that_can_be_made_is_fine(tmp_path):
    check_writable(tmp_path / "a" / "b", "run.root")
    assert not (tmp_path / "a").exists()


def test_a_file_in_its_way_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    for folder in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with pytest.raises(ConfigError, match=r"^run\.root: .*/a is no folder; name another$"):
            check_writable(folder, "run.root")


def test_a_link_to_nowhere_is_no_folder(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is no folder"):
        check_writable(tmp_path / "a", "--out")


def test_a_read_only_folder_is_refused_for_what_would_be_made_in_it(tmp_path):
    """Modes do not bind root, who gives its rights up for this test."""
    code = (
        "import os, sys; from pathlib import Path; from ehrdl.errors import ConfigError;"
        "from ehrdl.engine.folders import check_writable;"
        "os.getuid() or os.setuid(65534)\n"
        "try: check_writable(Path(sys.argv[1]), 'run.root')\n"
        "except ConfigError as error: print(error)"
    )
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if os.getuid() == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", code, str(closed / "run")], capture_output=True, text=True, check=True)
    assert done.stdout == f"run.root: {closed}/run cannot be written to, since {closed} cannot; name another folder\n"


def test_files_come_together_or_not_at_all(tmp_path):
    with filling(tmp_path / "out") as part:
        (part / "one").write_text("1")
        (part / "two").write_text("2")
    with pytest.raises(RuntimeError), filling(tmp_path / "out") as part:
        (part / "one").write_text("another")
        raise RuntimeError
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"one": "1", "two": "2"}
    with pytest.raises(RuntimeError), filling(tmp_path / "other") as part:
        (part / "one").write_text("another")
        raise RuntimeError
    assert not (tmp_path / "other").exists()
