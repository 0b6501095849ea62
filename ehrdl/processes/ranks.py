"""The rank of this process in its run, and the number of processes that train.

Only the first process handles data, files, baselines, metrics and the report. The others take part in its fits, and
write nothing (`team.py`). This module does not import torch, because the command line uses it before parsing.
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
    """The place of this process among those that were started together.

    Attributes:
        rank: the process's number, from 0.
        size: the number of processes.
        starter: the program that started the processes: `ehrdl` itself, `torchrun` or `srun`; empty = this process
            was started alone.
    """

    rank: int = 0
    size: int = 1
    starter: str = ""


def place() -> Place:
    """Return the place of this process, from the environment variables of the program that started it.

    As in Lightning, the variables of torchrun are read first, then those of SLURM. A SLURM task is a process.
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
    """Set the ehrdl command that starts the other processes of a run, for when this process is not a command.

    Args:
        arguments: the command's arguments, its name first.
    """
    _again[:] = ["-c", "from ehrdl.cli.main import main; main()", *arguments]


def command_of_others() -> list[str]:
    """Return the command line for the other processes: a command of ehrdl, or the script of this process."""
    return [sys.executable, *(_again or sys.orig_argv[1:])]


def hold_back() -> str:
    """Wait before printing an error, since the first process may print it too and then ends this process.

    Returns:
        The name of this process, for the printed line; empty for the first process.
    """
    here = place()
    if here.rank == 0:
        return ""
    if here.starter != "ehrdl":
        time.sleep(_HOLD_BACK)
    return f"process {here.rank} of {here.size}: "


def first_alone(command: str) -> None:
    """End here, with status 0, if torchrun has started several processes for a single-process command.

    Args:
        command: the command's name, for the line that the first process prints.
    """
    here = place()
    if here.starter != "torchrun" or here.size == 1:
        return
    if here.rank:
        raise SystemExit(0)
    from ehrdl.engine.messages import say

    say(f"{command} is the work of one process; the other {here.size - 1} have ended")


def check_world(n: int) -> None:
    """Refuse a number of processes that differs from the number started, before any of them works.

    Args:
        n: the number that the trainer requests.

    Raises:
        ConfigError: the numbers differ; the message says how to start that many.
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
    """Refuse settings for which a process that was started alone cannot start the others.

    Args:
        trainer: the result of `check_trainer`.
        n: the number of processes that the trainer requests.

    Raises:
        ConfigError: this process cannot start the others; the message names the key, or the environment variable.
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
    """Return the arguments of a Trainer that works only on the first of its devices.

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
