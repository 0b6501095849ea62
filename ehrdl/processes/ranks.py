"""Which of a run's processes this one is, and in how many a run trains.

The first process leads: data, files, baselines, metrics and the report are its own. The others take part in its fits,
and write nothing (`team.py`). Free of torch at import: the command line asks before it parses.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from ehrdl.errors import ConfigError

#: How the first process tells those that it starts: rank, size, host, port and token.
LEADER = "EHRDL_LEADER"
#: Seconds for which another process than the first keeps an error of its own, which the first mostly has as well.
_HOLD_BACK = 20.0


@dataclass(frozen=True)
class Place:
    """This process among those that were started together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        starter: who started them: `ehrdl` itself, `torchrun` or `srun`; empty = this one was started alone.
    """

    rank: int = 0
    size: int = 1
    starter: str = ""


def place() -> Place:
    """Where this process stands, by the environment variables of whoever started it.

    The same ones as Lightning's, in the same order: torchrun's, then SLURM's, whose tasks are the processes.
    """
    env = os.environ
    if LEADER in env:
        rank, size = env[LEADER].split(" ")[:2]
        return Place(int(rank), int(size), "ehrdl")
    if "TORCHELASTIC_RUN_ID" in env:
        return Place(int(env["RANK"]), int(env["WORLD_SIZE"]), "torchrun")
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return Place(int(env.get("SLURM_PROCID", "0")), int(env["SLURM_NTASKS"]), "srun")
    return Place()


_again: list[str] = []


def begin_others_with(arguments: list[str]) -> None:
    """Let other processes of a run be started by a command of ehrdl: this process's own need not be one.

    Args:
        arguments: of the command, its name first.
    """
    _again[:] = ["-c", "from ehrdl.cli.main import main; main()", *arguments]


def command_of_others() -> list[str]:
    """The command line of another process: a command of ehrdl, or this process's own script again."""
    return [sys.executable, *(_again or sys.orig_argv[1:])]


def hold_back() -> str:
    """Before an error is printed: wait where the first process prints it as well, and so ends this one.

    Returns:
        Whose error it is, for the line; empty for the first process.
    """
    here = place()
    if here.rank == 0:
        return ""
    if here.starter != "ehrdl":
        time.sleep(_HOLD_BACK)
    return f"process {here.rank} of {here.size}: "


def first_alone(command: str) -> None:
    """End here, with status 0, where torchrun has started several processes for a command that is one's work.

    Args:
        command: for the line of the first process.
    """
    here = place()
    if here.starter != "torchrun" or here.size == 1:
        return
    if here.rank:
        raise SystemExit(0)
    from ehrdl.engine.messages import say

    say(f"{command} is the work of one process; the other {here.size - 1} have ended")


def check_world(n: int) -> None:
    """Refuse a number of processes that is not that of those started, before any of them works.

    Args:
        n: that the trainer asks for.

    Raises:
        ConfigError: saying how to start as many.
    """
    here = place()
    if here.starter == "torchrun" and n != here.size:
        raise ConfigError(
            f"trainer.devices: torchrun has started {here.size} processes, and the trainer asks for {n} (devices x "
            f"num_nodes); set trainer.devices to the processes of a node and trainer.num_nodes to the nodes"
        )
    if here.starter == "srun" and n not in (1, here.size):
        raise ConfigError(
            f"trainer.devices: SLURM has {here.size} task{'s' * (here.size > 1)} (SLURM_NTASKS), and the trainer asks "
            f"for {n} processes (devices x num_nodes); use as many: #SBATCH --ntasks-per-node, and srun"
        )


def check_alone(trainer: dict[str, Any], n: int) -> None:
    """Refuse what a process that was started alone cannot start the others for.

    Args:
        trainer: from `check_trainer`.
        n: processes that it asks for.

    Raises:
        ConfigError: naming the key, or the environment variable.
    """
    if n == 1 or place().starter:
        return
    nodes = int(trainer.get("num_nodes") or 1)
    if nodes > 1:
        raise ConfigError(f"trainer.num_nodes: {nodes} nodes are started by srun or torchrun (docs/cluster.md)")
    if "LOCAL_RANK" in os.environ:
        raise ConfigError(
            "trainer.devices: LOCAL_RANK is set, but neither torchrun nor srun has set it; unset it, or use torchrun"
        )


def one_device(trainer: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a Trainer that works on the first of its devices alone.

    >>> one_device({"accelerator": "gpu", "devices": [2, 3], "strategy": "ddp", "max_epochs": 3})
    {'accelerator': 'gpu', 'devices': [2]}
    >>> one_device({"precision": 32, "devices": 4})
    {'precision': 32, 'devices': 1}
    """
    kept = {key: trainer[key] for key in ("accelerator", "precision") if key in trainer}
    devices = trainer.get("devices")
    if isinstance(devices, str) and "," in devices:
        devices = [int(part) for part in devices.split(",") if part.strip()]
    return kept | {"devices": devices[:1] if isinstance(devices, list) else 1}
