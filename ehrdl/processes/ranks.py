"""The rank of this process in its run, and the number of processes that train.

Only the first process handles data, files, baselines, metrics and the report. The other processes take part in the fits
of networks, and write nothing (see `team.py`). This module does not import torch, because the command line imports it
and must start fast.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from ehrdl.errors import ConfigError

#: The environment variable of the processes that ehrdl starts: rank, size, host, port and token.
LEADER = "EHRDL_LEADER"
#: Seconds for which a follower holds back its own error, since the first process usually has the same error.
_HOLD_BACK = 20.0


@dataclass(frozen=True)
class Place:
    """The number of this process among the processes that were started together for one run.

    Attributes:
        rank: the number of this process, from 0. Process 0 is the first.
        size: how many processes were started.
        starter: the program that started the processes: `ehrdl` itself, `torchrun` or `srun`; empty = this process
            was started alone.
    """

    rank: int = 0
    size: int = 1
    starter: str = ""


def place() -> Place:
    """Return this process's rank and the number of processes, from the environment variables of their starter.

    As in Lightning, the variables of torchrun are read first, then the variables of SLURM. A SLURM task is a process.
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
    """Set the ehrdl command with which the first process starts the other processes of a run.

    Without it, the command line of the first process is repeated.

    Args:
        arguments: the name of the command, such as `train`, and its arguments.
    """
    _again[:] = ["-c", "from ehrdl.cli.main import main; main()", *arguments]


def command_of_others() -> list[str]:
    """Return the command line that starts the other processes: a command of ehrdl, or the script of this process."""
    return [sys.executable, *(_again or sys.orig_argv[1:])]


def hold_back() -> str:
    """Wait before this process prints an error, and return the prefix of the printed line.

    The first process often has the same error. It prints the error, and its end also ends this process.

    Returns:
        The name of this process; empty for the first process, which does not wait.
    """
    here = place()
    if here.rank == 0:
        return ""
    if here.starter != "ehrdl":
        time.sleep(_HOLD_BACK)
    return f"process {here.rank} of {here.size}: "


def first_alone(command: str) -> None:
    """Let only the first process run a command, if torchrun has started several. The others end with status 0.

    Args:
        command: the name of the command, for the message that the first process prints.
    """
    here = place()
    if here.starter != "torchrun" or here.size == 1:
        return
    if here.rank:
        raise SystemExit(0)
    from ehrdl.engine.messages import say

    say(f"{command} is the work of one process; the other {here.size - 1} have ended")


def check_world(n: int) -> None:
    """Check that torchrun or srun has started as many processes as the Trainer requests.

    Args:
        n: the number of processes that the Trainer requests.

    Raises:
        ConfigError: the numbers differ; the message tells how to make them equal.
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
    """Check that a process that was started alone can start the other processes of its run.

    Args:
        trainer: the result of `check_trainer`.
        n: the number of processes that the Trainer requests.

    Raises:
        ConfigError: it cannot; the message names the config key or the environment variable that prevents it.
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
    """Return Trainer arguments for one process on the first of the requested devices.

    Only accelerator and precision are kept.

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
