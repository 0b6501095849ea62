"""The first process of a run leads: the others do what it orders, and when one dies, all end with one line."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ehrdl.processes.link import Link, connect, listen
from ehrdl.processes.team import Leader

ROOT = Path(__file__).parents[2]
#: Two processes that do nothing but talk; `what` says how one of them ends.
SCRIPT = """
import os, signal, sys, time
from ehrdl.errors import ConfigError, EhrdlError
from ehrdl.processes import team
from ehrdl.processes.together import together
from ehrdl.processes.ranks import place
print("began", time.monotonic(), flush=True)
what, rank, team._GRACE = sys.argv[1], place().rank, 3.0
try:
    run, key = "runs/other" if rank and what == "run" else "runs/a", f"{rank}" if what == "key" else ""
    with together({}, run, key) as own:
        if rank:
            with own.reporting():
                for order in own.orders():
                    print("order", order["n"], flush=True)
                    if what == "killed" and order["n"] == 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if what == "status":
                        os._exit(7)
                    if what == "error":
                        raise ConfigError("data: are bad")
                    if what == "bug":
                        raise RuntimeError("no memory")
                    own.reply(ready=True)
            own.leave()
            print("left", flush=True)
        else:
            own.start(2)
            for n in (1, 2, 3):
                own.order(do="fit", n=n)
            if what == "busy":
                print(os.getpid(), own._children[0].pid, flush=True)
                time.sleep(60)
            print("done", flush=True)
except EhrdlError as error:
    print(f"line: {error}", file=sys.stderr)
    raise SystemExit(2)
"""


def run(what, timeout=100):
    """Status, lines of all processes, errors, and seconds since the last of them had imported what it needs."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, what],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    ended, lines = time.monotonic(), done.stdout.split("\n")
    began = max(float(line.split()[1]) for line in lines if line.startswith("began "))
    return (
        done.returncode,
        [line for line in lines if not line.startswith("began ")],
        done.stderr.strip(),
        ended - began,
    )


def test_the_others_do_what_the_first_orders_and_end_with_it():
    status, lines, errors, _ = run("well")
    assert (status, errors) == (0, "")
    assert sorted(lines) == ["", "done", "order 1", "order 2", "order 3"]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("killed", "process 1 of 2 was killed by signal 9"),
        pytest.param("status", "process 1 of 2 ended with status 7", marks=pytest.mark.slow),
        pytest.param("error", "process 1 of 2 failed: data: are bad", marks=pytest.mark.slow),
        pytest.param(
            "key", "process 1 of 2 failed: --config: is not that of the first process", marks=pytest.mark.slow
        ),
        pytest.param("run", "process 1 of 2 ended with status 0", marks=pytest.mark.slow),
    ],
)
def test_the_end_of_another_process_ends_all_with_one_line(what, line):
    status, lines, errors, seconds = run(what)
    assert (status, "done" in lines) == (2, False)
    assert errors.startswith(f"line: {line}")
    assert errors.count("\n") == 0
    assert seconds < 20


@pytest.mark.slow
def test_a_bug_of_another_process_keeps_its_traceback_above_the_line():
    status, _, errors, _ = run("bug")
    assert status == 2
    assert errors.startswith("Traceback")
    assert errors.split("\n")[-1].startswith("line: process 1 of 2 failed: RuntimeError: no memory")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_no_process_outlives_another_while_the_first_is_busy(victim):
    command = [sys.executable, "-c", SCRIPT, "busy"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as process:
        lines = (line.split() for line in process.stdout)
        pids = [next(line for line in lines if len(line) == 2 and line[0].isdigit())]
        os.kill(int(pids[0][victim]), signal.SIGKILL)
        assert process.wait(40) == (-signal.SIGKILL if victim == 0 else 2)
        errors = process.stderr.read()
    assert errors.count("\n") == 1
    assert ("the first process was killed" if victim == 0 else "process 1 of 2 was killed by signal 9") in errors
    until = time.monotonic() + 20
    while Path(f"/proc/{pids[0][1]}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pids[0][1]}").exists()


def test_who_does_not_know_the_token_is_sent_away():
    leader, listener = Leader("runs/a", ""), listen("127.0.0.1")
    host, port = listener.getsockname()
    stranger, known = connect(host, port, 5), connect(host, port, 5)
    stranger.send({"token": "guess", "rank": 1})
    known.send({"token": "secret", "rank": 1})
    leader.meet(2, listener, "secret")
    assert stranger.receive() is None
    assert known.receive() == {"run": "runs/a", "key": ""}
    leader.end(well=True)
    assert known.receive() == {"do": "end"}
    known.close()
    time.sleep(0.5)  # its thread sees the end


@pytest.mark.parametrize("garbage", [b"[1, 2]\n", b"GET / HTTP/1.1\n", b"{", b"\xff\xfe\n"])
def test_garbage_on_a_connection_is_no_message(garbage):
    with listen("127.0.0.1") as listener, socket.create_connection(listener.getsockname()) as stranger:
        link = Link(listener.accept()[0])
        stranger.sendall(garbage)
        stranger.shutdown(socket.SHUT_WR)
        assert link.receive() is None
