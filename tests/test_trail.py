"""The audit trail: a line that was changed, removed, moved or added shows, and a kill leaves it readable."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ehrdl.cli.main import main
from ehrdl.errors import ConfigError
from ehrdl.runs import trail
from ehrdl.runs.chain import faults, read_trail

KILLED = """
import os, signal, sys
from pathlib import Path
from ehrdl.runs import trail
whole = os.write
def half(file, line):
    whole(file, line[: int(sys.argv[2])])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = half
trail.enter(Path(sys.argv[1]), "killed", {}, create=True)
"""


def fill(root: Path, n: int) -> None:
    for i in range(n):
        trail.enter(root, "train finished", {"run": f"run{i}"}, create=True)


def lines_of(root: Path) -> list[str]:
    return (root / trail.TRAIL).read_text().splitlines(keepends=True)


def write(root: Path, lines: list[str]) -> None:
    (root / trail.TRAIL).write_text("".join(lines))


def killed(root: Path, after_bytes: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(after_bytes)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_entries_say_who_did_what_and_form_a_chain(tmp_path):
    fill(tmp_path, 3)

    entries = read_trail(tmp_path).entries

    assert [entry["n"] for entry in entries] == [1, 2, 3]
    assert [entry["previous"] for entry in entries] == ["", entries[0]["hash"], entries[1]["hash"]]
    assert entries[0]["uid"] == os.getuid() and entries[0]["time"].endswith("+00:00") and entries[0]["host"]


def test_the_hash_is_the_sha256_of_the_canonical_json(tmp_path):
    from hashlib import sha256

    fill(tmp_path, 1)
    entry = json.loads(lines_of(tmp_path)[0])
    own = entry.pop("hash")

    assert own == sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda a: [a[0], a[1].replace("run1", "run9"), *a[2:]], 2, "was changed after it had been written"),
        (lambda a: [a[0], a[1].replace('{"n"', '{ "n"'), *a[2:]], 2, "was changed after it had been written"),
        (lambda a: [a[0], "nothing\n", *a[2:]], 2, "was changed, so that it is no entry any more"),
        (lambda a: [a[0], *a[2:]], 2, "1 line was removed before it"),
        (lambda a: [a[0], a[4]], 2, "3 lines were removed before it"),
        (lambda a: a[1:], 1, "1 line was removed before it"),
        (lambda a: [a[0], a[2], a[1], *a[3:]], 2, "is not in its place"),
        (lambda a: [*a, a[1]], 6, "is not in its place"),
        (lambda a: [*a, a[4]], 6, "is not in its place"),
        (lambda a: [*a, a[4].replace('"n": 5', '"n": 6')], 6, "was changed after it had been written"),
        (lambda a: [*a, "{}\n"], 6, "is no entry"),
        (lambda a: [*a[:4], a[4][:40]], 5, "is no entry"),
    ],
)
def test_a_line_that_was_changed_removed_moved_or_added_is_named(tmp_path, change, where, what):
    fill(tmp_path, 5)
    write(tmp_path, change(lines_of(tmp_path)))

    with pytest.raises(ConfigError, match=rf"audit\.jsonl, line {where}: .*{what}"):
        read_trail(tmp_path)


def test_a_forged_entry_with_a_hash_of_its_own_breaks_the_chain(tmp_path):
    fill(tmp_path, 3)
    lines = lines_of(tmp_path)
    forged = json.loads(lines[1]) | {"run": "forged"}
    forged["hash"] = trail.own_hash(forged)
    write(tmp_path, [lines[0], trail.to_line(forged).decode(), lines[2]])

    with pytest.raises(ConfigError, match="line 3: does not follow the line before it"):
        read_trail(tmp_path)


@pytest.mark.parametrize("after_bytes", [0, 1, 150, 10_000])
def test_a_kill_in_the_middle_of_an_append_is_marked_and_the_chain_goes_on(tmp_path, after_bytes):
    fill(tmp_path, 2)
    killed(tmp_path, after_bytes)
    fill(tmp_path, 1)

    found = read_trail(tmp_path)

    actions = [entry["action"] for entry in found.entries]
    if after_bytes in (1, 150):
        assert actions == ["train finished", "train finished", trail.MENDED, "train finished"]
        assert found.cut == [3] and found.lines == [1, 2, 4, 5]
    else:
        assert trail.MENDED not in actions and found.cut == []
        assert len(actions) == (3 if after_bytes == 0 else 4)


def test_a_kill_in_the_first_append_leaves_a_trail_that_goes_on(tmp_path):
    killed(tmp_path, 60)
    killed(tmp_path, 60)
    fill(tmp_path, 1)

    assert [entry["action"] for entry in read_trail(tmp_path).entries] == [trail.MENDED, "train finished"]


def test_a_line_that_lacks_only_its_end_of_line_is_kept(tmp_path):
    fill(tmp_path, 2)
    write(tmp_path, ["".join(lines_of(tmp_path)).removesuffix("\n")])
    fill(tmp_path, 1)

    assert len(read_trail(tmp_path).entries) == 3


def test_what_a_kill_left_may_not_be_changed_later(tmp_path):
    fill(tmp_path, 1)
    killed(tmp_path, 150)
    fill(tmp_path, 1)
    lines = lines_of(tmp_path)
    write(tmp_path, [lines[0], lines[1].replace("time", "tame"), *lines[2:]])

    with pytest.raises(ConfigError, match="line 2: was changed"):
        read_trail(tmp_path)


def test_two_processes_append_200_lines_each_in_one_chain(tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fill, args=(tmp_path, 200)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()

    found = read_trail(tmp_path)

    assert len(found.entries) == 400 and found.cut == []
    assert [entry["n"] for entry in found.entries] == list(range(1, 401))


def test_a_removed_end_shows_in_the_manifest_that_names_it(tmp_path):
    fill(tmp_path, 3)
    lines = lines_of(tmp_path)
    (tmp_path / "run2").mkdir()
    named = {"audit": {"trail": trail.TRAIL, "entry": json.loads(lines[2])["hash"]}}
    (tmp_path / "run2" / "manifest.json").write_text(json.dumps(named))
    assert list(faults(tmp_path, read_trail(tmp_path))) == []

    write(tmp_path, lines[:2])

    [fault] = faults(tmp_path, read_trail(tmp_path))
    assert "run2/manifest.json: names the entry" in fault and "the end of the trail was removed" in fault


def test_a_file_that_was_changed_after_its_entry_is_named_unless_its_run_is_being_made(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    made = {"run": "run", "files": trail.hashes(folder, ["metrics.json", "not_there"])}
    trail.enter(tmp_path, "train finished", made, create=True)
    assert list(faults(tmp_path, read_trail(tmp_path))) == []

    (folder / "metrics.json").write_text('{"auroc": 1}')
    [fault] = faults(tmp_path, read_trail(tmp_path))
    trail.enter(tmp_path, "train resumed", {"run": "run"})

    assert "metrics.json: has changed since entry 1" in fault
    assert list(faults(tmp_path, read_trail(tmp_path))) == []


def test_a_trail_that_cannot_be_written_is_a_line_and_no_failure(tmp_path, capsys):
    (tmp_path / trail.TRAIL).mkdir()

    assert trail.enter(tmp_path, "predict", {}, create=True) is None
    assert "so this is not in the audit trail: predict" in capsys.readouterr().err


def test_no_trail_is_begun_where_none_was_kept(tmp_path):
    assert trail.enter(tmp_path, "report", {}) is None
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_entries_and_the_newest_hash(tmp_path, capsys):
    fill(tmp_path, 2)

    main(["trail", str(tmp_path)])

    out = capsys.readouterr().out
    assert "train finished  run1" in out and "2 entries are intact" in out
    assert json.loads(lines_of(tmp_path)[1])["hash"] in out


@pytest.mark.parametrize("content", [None, "one\ntwo\n"])
def test_the_command_fails_with_one_line(tmp_path, capsys, content):
    if content:
        write(tmp_path, [content])

    with pytest.raises(SystemExit) as stopped:
        main(["trail", str(tmp_path)])

    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "audit.jsonl" in error
