"""kill -9 at random moments of a run in two processes, then the same command: does it end as if undisturbed?

    python benchmarks/crash_ddp.py --kills 10 --json crash_ddp.json

fits three networks with two seeds, once undisturbed, and then once for every kill: of all processes, or of one of them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from measure import show

_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
#: Seconds within which all processes must have ended once one of them is killed.
_ALL_ENDED = 60.0


def command(folder: Path, name: str, patients: int) -> list[str]:
    """A run in two processes, from a cache that is there."""
    return [
        sys.executable,
        "-c",
        "from ehrdl.cli.main import main; main()",
        "train",
        f"--config={_CONFIG}",
        f"--run.name={name}",
        f"--run.root={folder / 'runs'}",
        f"--data.prepare.cache={folder / 'cache'}",
        f"--data.source.init_args.n_patients={patients}",
        "--data.source.init_args.note_tokens=[10, 30]",
        "--data.batch.size=16",
        "--model.init_args.note.init_args.layers=1",
        "--model.init_args.note.init_args.width=16",
        "--seeds=[0, 1]",
        "--optim.pretrain_epochs=1",
        "--trainer.max_epochs=3",
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--baselines=[prevalence]",
    ]


def start(line: list[str]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that all of its processes can be named."""
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def members(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def kill(line: list[str], after: float, one: random.Random | None) -> float | None:
    """Start a command, kill its processes after so many seconds, and wait until none is left.

    Args:
        line: the command.
        after: seconds.
        one: draws the one process that is killed; None = all are.

    Returns:
        Seconds from the kill until the last has ended; None where the command had ended before.
    """
    process = start(line)
    time.sleep(after)
    living = members(process.pid)
    if process.poll() is not None or not living:
        return None
    began = time.monotonic()
    for victim in [one.choice(living)] if one else living:
        os.kill(victim, signal.SIGKILL)
    while members(process.pid) or process.poll() is None:
        if time.monotonic() - began > _ALL_ENDED:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    return time.monotonic() - began


def equal(one: Path, other: Path) -> bool:
    """Whether two runs have the same predictions and metrics."""
    tables = [pd.read_parquet(run / "predictions.parquet") for run in (one, other)]
    metrics = [(run / "metrics.json").read_bytes() for run in (one, other)]
    return tables[0].equals(tables[1]) and metrics[0] == metrics[1]


def crash(folder: Path, patients: int, kills: int, seed: int) -> dict[str, Any]:
    """Kill as many runs, all processes of every other and one of the rest, resume each, and count the equal ends."""
    for name in ("first", "whole"):  # the first fills the cache
        began = time.monotonic()
        if start(command(folder, name, patients)).wait():
            raise SystemExit("the undisturbed run failed")
    took = time.monotonic() - began
    draw, n_equal, slowest, done = random.Random(seed), 0, 0.0, 0
    while done < kills:
        name = f"killed-{done}"
        line = command(folder, name, patients)
        seconds = kill(line, draw.uniform(0.1 * took, took), draw if done % 2 else None)
        if seconds is None:  # it had ended: the machine is faster now
            shutil.rmtree(folder / "runs" / name)
            continue
        slowest = max(slowest, seconds)
        ended = start(line).wait() == 0
        n_equal += ended and equal(folder / "runs" / "whole", folder / "runs" / name)
        done += 1
        print(f"{n_equal} of {done} equal; all ended {seconds:.1f} s after the kill", file=sys.stderr, flush=True)
    return {"kills": kills, "equal": n_equal, "slowest_end_s": round(slowest, 1), "undisturbed_s": round(took, 1)}


def main() -> None:
    """Print a table; exit status 1 where a run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehrdl-crash-") as folder:
        found = crash(Path(folder), options.patients, options.kills, options.seed)
    show("crash_ddp", found, options.json)
    raise SystemExit(found["equal"] != found["kills"])


if __name__ == "__main__":
    main()
