"""Stop a whole run at random moments, then give the same command: does it end as an undisturbed run does?

    python benchmarks/preempt.py --kills 20 --preemptions 20 --json preempt.json

fits three networks with two seeds, note pretraining and baselines on a small synthetic hospital; once undisturbed, then
once for every SIGKILL, and for every SIGUSR1 that SLURM sends ahead of a preemption. Predictions, metrics and
checkpoints are compared. The process that starts the runs has imported everything, and forks.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measure import show

from ehrdl.cli.main import main as ehrdl_command
from ehrdl.engine.files import read_json

_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
_SECONDS_A_LOOK = 0.01
_SLURM = {"JOB_ID": "41", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
_BASELINES = "[prevalence, logistic_regression]"


def command(folder: Path, name: str, patients: int) -> list[str]:
    """A whole run with every kind of fit."""
    return [
        "train",
        f"--config={_CONFIG}",
        f"--run.name={name}",
        f"--run.root={folder / 'runs'}",
        f"--data.source.init_args.n_patients={patients}",
        "--data.source.init_args.note_tokens=[10, 30]",
        "--model.init_args.note.init_args.layers=1",
        "--model.init_args.note.init_args.width=16",
        f"--data.prepare.cache={folder / 'cache'}",
        "--data.batch.size=32",
        "--seeds=[0, 1]",
        "--optim.pretrain_epochs=1",
        "--optim.selection=best_tuning",
        "--trainer.max_epochs=2",
        f"--baselines={_BASELINES}",
    ]


def start(arguments: list[str], log: Path, environment: dict[str, str]) -> int:
    """Fork a process that runs a command of ehrdl, and return its number."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        os.environ.update(environment)
        tempfile.tempdir = None  # is asked again
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        ehrdl_command(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def has_begun(number: int, kind: int) -> bool:
    """Whether a process has got as far as to catch a signal that can be caught.

    Before that it is no run yet: SLURM gives its warning minutes before the end of a job, not in its first instant.
    """
    if kind == signal.SIGKILL:
        return True
    status = Path(f"/proc/{number}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (kind - 1) & 1)


def ended(number: int, after: float, kind: int) -> int:
    """Send a process a signal after so many seconds, and return its status; negative for a signal that killed it."""
    until, sent = time.monotonic() + after, False
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if not sent and time.monotonic() > until and has_begun(number, kind):
            os.kill(number, kind)
            sent = True
        time.sleep(_SECONDS_A_LOOK)


def undisturbed(arguments: list[str], log: Path) -> float:
    """Seconds that a run takes, from a full cache."""
    began = time.monotonic()
    if status := ended(start(arguments, log, {}), 1e9, signal.SIGKILL):
        raise SystemExit(f"the undisturbed run ended with {status}:\n{log.read_text()}")
    return time.monotonic() - began


def equal(one: Path, other: Path) -> bool:
    """Whether two runs have the same predictions, metrics and weights."""
    tables = [pd.read_parquet(run / "predictions.parquet") for run in (one, other)]
    same = tables[0].equals(tables[1])
    same &= read_json(one / "metrics.json", dict) == read_json(other / "metrics.json", dict)
    names = sorted(path.name for path in (one / "checkpoints").iterdir())
    same &= names == sorted(path.name for path in (other / "checkpoints").iterdir())
    for name in names if same else []:
        ours, theirs = (torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in (one, other))
        same &= ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())
    return bool(same)


def programs(folder: Path) -> dict[str, str]:
    """The environment of a SLURM job whose `scontrol` writes down what it is asked."""
    (folder / "bin").mkdir()
    (folder / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{folder / "asked"}"\n')
    (folder / "bin" / "scontrol").chmod(stat.S_IRWXU)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {f"SLURM_{key}": value for key, value in _SLURM.items()} | {"PATH": path}


def disturb(
    folder: Path, patients: int, kills: int, preemptions: int, seed: int, temporary: dict[str, str]
) -> dict[str, Any]:
    """Stop as many runs, resume each, and count those that end equal to an undisturbed one."""
    log = folder / "log"
    undisturbed(command(folder, "first", patients), log)  # fills the cache
    took = undisturbed(command(folder, "whole", patients), log)
    draw, job = random.Random(seed), programs(folder)
    found: dict[str, Any] = {"undisturbed_s": round(took, 1)}
    for what, count, kind, status in (
        ("kills", kills, signal.SIGKILL, -signal.SIGKILL),
        ("preemptions", preemptions, signal.SIGUSR1, 128 + signal.SIGUSR1),
    ):
        environment = temporary | (job if kind == signal.SIGUSR1 else {})
        n_equal = done = 0
        while done < count:
            name = f"{what}-{done}"
            arguments = command(folder, name, patients)
            log.write_text("")
            got = ended(start(arguments, log, environment), after := draw.uniform(0, took), kind)
            if got == 0:  # it had ended: the machine is faster now
                shutil.rmtree(folder / "runs" / name)
                continue
            same = got == status and not ended(start(arguments, log, environment), 1e9, kind)
            same = same and equal(folder / "runs" / "whole", folder / "runs" / name)
            if not same:
                print(f"{name}: after {after:.2f} s, status {got}\n{log.read_text()}", file=sys.stderr, flush=True)
            n_equal, done = n_equal + same, done + 1
            print(f"{what}: {n_equal} of {done}", file=sys.stderr, flush=True)
            shutil.rmtree(folder / "runs" / name, ignore_errors=True)
        found |= {what: count, f"{what}_equal": n_equal}
    asked = folder / "asked"
    found["requeued"] = len(asked.read_text().splitlines()) if asked.is_file() else 0
    return found


def main() -> None:
    """Print a table; exit status 1 where a run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--preemptions", type=int, default=20)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tmpdir", type=Path, help="the runs' temporary folder, such as one on another file system")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehrdl-preempt-") as folder:
        temporary = {"TMPDIR": str(options.tmpdir)} if options.tmpdir else {}
        found = disturb(Path(folder), options.patients, options.kills, options.preemptions, options.seed, temporary)
    show("preempt", found, options.json)
    raise SystemExit(any(found[f"{what}_equal"] != found[what] for what in ("kills", "preemptions")))


if __name__ == "__main__":
    main()
