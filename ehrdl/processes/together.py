"""Connects the processes of a run, and runs the fits that they share."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ehrdl.engine.messages import mute, say
from ehrdl.errors import ConfigError, EhrdlError, WorkerError
from ehrdl.processes.link import connect, listen
from ehrdl.processes.ranks import LEADER, Place, check_alone, check_world, place
from ehrdl.processes.team import MEET, SECONDS_A_LOOK, Follower, Leader
from ehrdl.processes.trainer import n_processes

_leader: Leader | None = None
_follower: Follower | None = None
#: The number of runs that this process has begun together with others. Under torchrun, a script may begin several.
_n_runs = 0


@contextmanager
def together(trainer: dict[str, Any], run: str, key: str) -> Iterator[Leader | Follower]:
    """Connect the processes of a run within the block.

    Args:
        trainer: the `trainer` part of the configuration.
        run: the run's folder.
        key: the hash of the run's configuration.

    Yields:
        A `Leader` in the first process of the run, a `Follower` in every other process.

    Raises:
        ConfigError: the number of processes differs from the number that the Trainer requests.
        WorkerError: a process has died or failed.
    """
    global _leader
    here, leader = place(), Leader(run, key)
    if here.size > 1 and (follower := _meet(leader, here, trainer)):
        yield follower
        return
    outer, _leader = _leader, leader
    well = False
    try:
        yield leader
        well = True
    finally:
        _leader = outer
        leader.end(well)


def _meet(leader: Leader, here: Place, trainer: dict[str, Any]) -> Follower | None:
    """Connect the processes that were started together; None = this process is the first, or alone."""
    global _follower, _n_runs
    if here.starter == "ehrdl":
        mute()
        _follower = _follower or _join(here, *os.environ[LEADER].split(" ")[2:])
        return _follower.of(leader)
    from ehrdl.processes.trainer import check_trainer

    n = n_processes(check_trainer(trainer))
    check_world(n)
    if n == 1:
        return None
    _n_runs += 1
    store = _store(here)
    if here.rank:
        mute()
        return _join(here, *_find(store).split(" ")).of(leader)
    leader.store, token = store, secrets.token_hex(16)
    listener = listen(store.host)
    store.set(_place_of_leader(), f"{store.host} {listener.getsockname()[1]} {token}")
    leader.meet(n, listener, token)
    return None


def _store(here: Place) -> Any:
    """Return the key-value store by which torch's processes find each other.

    It is the store of torchrun or a new store of the first process.
    """
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    where = TorchElasticEnvironment() if here.starter == "torchrun" else SLURMEnvironment()
    opens = here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    within = timedelta(seconds=MEET)
    return TCPStore(where.main_address, where.main_port, None, opens, within, wait_for_workers=False, multi_tenant=True)


def _place_of_leader() -> str:
    return f"ehrdl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_n_runs}"


def _find(store: Any) -> str:
    until = time.monotonic() + MEET
    while not store.check([_place_of_leader()]):
        if time.monotonic() > until:
            raise WorkerError(f"the first process did not come within {MEET:.0f} s")
        time.sleep(SECONDS_A_LOOK)
    found: bytes = store.get(_place_of_leader())
    return found.decode()


def _join(here: Place, host: str, port: str, token: str) -> Follower:
    try:
        follower = Follower(here, connect(host, int(port), MEET), token)
    except OSError:
        raise SystemExit(1) from None  # the first process has ended, and reported why
    if follower.hello is None:
        raise SystemExit(1)
    return follower


@dataclass(frozen=True)
class Joined:
    """The settings of one fit, which the first process of a run sends to the other processes.

    Attributes:
        name: the name of the model that is fitted.
        seed: the random seed of the fit.
        scratch: the folder of the checkpoints from which a killed fit resumes.
        resume: the checkpoint that the fit resumes from; None = it starts at the beginning.
        data: the hash of the training data.
        start: the names of the models whose encoders the fit starts from.
    """

    name: str
    seed: int
    scratch: str
    resume: str | None
    data: str
    start: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, order: dict[str, Any]) -> Joined:
        """Read the settings from an order of the first process. Other keys of the order are ignored."""
        return cls(**{name: order[name] for name in cls.__annotations__})

    def check(self) -> None:
        """Check that this machine sees the checkpoint from which the fit resumes.

        Raises:
            ConfigError: it does not see the run's folder of the first process.
        """
        if self.resume and not Path(self.resume).is_file():
            raise ConfigError(f"run.root: {self.resume} is not there; all machines must see the same folder")


@dataclass
class Common:
    """A fit in which all processes of a run take part.

    Attributes:
        weights: the hash of the fitted weights, set when the fit is done; empty before.
    """

    weights: str = ""


@contextmanager
def common(n: int, trainer: dict[str, Any], order: Joined) -> Iterator[Common]:
    """Let all processes of a run take part in the fit that the first process runs in the block.

    The other processes are ready when the block begins. At its end, the fitted weights of all processes are compared.

    Args:
        n: the number of processes.
        trainer: arguments of the Lightning trainer, from `check_trainer`.
        order: the settings of the fit, which are sent to the other processes.

    Raises:
        WorkerError: another process has died or failed.
    """
    fit, leader = Common(), _leader
    if n == 1:
        yield fit
        return
    if leader is None:
        raise ConfigError(f"trainer.devices: {n} processes train under `ehrdl train` alone; use one device here")
    if leader.size == 1:
        check_alone(trainer, n)
    try:
        leader.start(n)
        leader.order(do="fit", **asdict(order))
        yield fit
        if any(weights != fit.weights for weights in leader.hear("done")):
            say("warning: the processes ended with different weights; those of the first are kept")
    except (EhrdlError, SystemExit, KeyboardInterrupt):
        raise
    except Exception:
        leader.settle()
        raise
