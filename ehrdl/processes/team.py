"""The processes of a run that trains in several processes: the first leads, the others follow its orders.

With `trainer.devices: 2`, the first process starts the other with its own command line when the first network is to be
fitted. torchrun and srun start all processes at once. All but the first then wait. Only the first process decides what
to do, from what it finds in the run's folder. It sends each fit as an order, so that processes cannot disagree about a
file. When a process dies, its sockets close. The others notice this at once, and end.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError, EhrdlError, WorkerError
from ehrdl.processes.link import Link, listen
from ehrdl.processes.ranks import LEADER, Place, command_of_others

#: Seconds within which the processes of a run must find each other.
MEET = 300.0
#: Seconds for a process to end by itself after another is lost, and seconds for the first to receive the reason.
_GRACE, _HEAR = 15.0, 10.0
#: Seconds within which an error is attributed to the end of another process.
_FOLLOWS_WITHIN = 2.0
SECONDS_A_LOOK = 0.1
#: Environment variables that Lightning reads in a process started alone. Lightning or ehrdl sets them for the others.
_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Leader:
    """The first process of a run, which sends orders to the other processes.

    Args:
        run: the run's folder. Every other process compares it with its own.
        key: the hash of the run's configuration, which is compared in the same way.
    """

    def __init__(self, run: str, key: str) -> None:
        self.run, self.key = run, key
        self.size = 1
        self._links: dict[int, Link] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._replies: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._lost: str | None = None
        self._told = self._closing = False
        self._lock = threading.Lock()
        self.store: Any = None  # by which the others find this process, as long as this object lives

    def start(self, n: int) -> None:
        """Start the other n - 1 processes with this process's command line, and wait until they have connected."""
        if self.size == n:
            return
        listener, token = listen("127.0.0.1"), secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        world = {"NODE_RANK": "0", "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(1, n):
            own = f"{rank} {n} 127.0.0.1 {listener.getsockname()[1]} {token}"
            paths = os.pathsep.join(path for path in sys.path if path)
            env = os.environ | world | {"LOCAL_RANK": str(rank), LEADER: own, "PYTHONPATH": paths}
            self._children.append(subprocess.Popen(command_of_others(), env=env, stdin=subprocess.DEVNULL))
        os.environ.update(world, LOCAL_RANK="0")
        self.meet(n, listener, token)

    def meet(self, n: int, listener: socket.socket, token: str) -> None:
        """Wait until all other processes have connected to this one.

        Args:
            n: the number of processes, including this one.
            listener: the socket to which they connect.
            token: the secret that they send to be recognised.

        Raises:
            WorkerError: a process has ended, or has not connected in time.
        """
        self.size, until = n, time.monotonic() + MEET
        listener.settimeout(SECONDS_A_LOOK)
        while len(self._links) < n - 1:
            for rank, child in enumerate(self._children, start=1):
                if child.poll() is not None:
                    raise WorkerError(f"process {rank} of {n} {_ended(child.returncode)} before it could join the run")
            if time.monotonic() > until:
                missing = ", ".join(str(rank) for rank in range(1, n) if rank not in self._links)
                raise WorkerError(
                    f"of {n} processes {missing} did not come within {MEET:.0f} s; under SLURM start them with srun"
                )
            with suppress(TimeoutError):
                self._welcome(listener.accept()[0], token)
        listener.close()

    def _welcome(self, connected: socket.socket, token: str) -> None:
        connected.settimeout(_HEAR)
        link = Link(connected)
        hello = link.receive() or {}
        if not secrets.compare_digest(str(hello.get("token", "")), token):  # an outsider, who scans ports
            link.close()
            return
        connected.settimeout(None)
        self._links[hello["rank"]] = link
        link.send({"run": self.run, "key": self.key})
        threading.Thread(target=self._listen, args=(hello["rank"],), daemon=True).start()

    def _listen(self, rank: int) -> None:
        """Receive another process's messages until it ends."""
        while (message := self._links[rank].receive()) is not None:
            if "failed" in message:
                return self._lose(rank, f"failed: {message['failed']}")
            self._replies.put((rank, message))
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = self._children[rank - 1].wait(1.0) if self._children else None
        return self._lose(rank, _ended(code))

    def _lose(self, rank: int, how: str) -> None:
        with self._lock:
            if self._closing or self._lost is not None:
                return
            self._lost = f"process {rank} of {self.size} {how}; the others are stopped, and the same command resumes"
        for link in self._links.values():
            link.send({"do": "stop"})
        time.sleep(_GRACE)  # the main thread may wait for the lost process for ever
        if not self._closing:
            if not self._told:
                say(f"ehrdl: {self._lost}")
            os._exit(2)

    def order(self, **what: Any) -> None:
        """Send an order to the other processes, and wait without a time limit until all of them are ready."""
        for link in self._links.values():
            link.send(what)
        self.hear("ready")

    def hear(self, what: str) -> list[Any]:
        """Wait until all other processes have replied, and return the values of their replies.

        Args:
            what: the key of the reply to wait for: `ready` or `done`.

        Raises:
            WorkerError: a process has died or failed.
        """
        replies: dict[int, Any] = {}
        while len(replies) < self.size - 1:
            self.check()
            try:
                rank, message = self._replies.get(timeout=SECONDS_A_LOOK)
            except queue.Empty:
                continue
            if what in message:
                replies[rank] = message[what]
        return list(replies.values())

    def check(self) -> None:
        """Check that no other process has died or failed.

        Raises:
            WorkerError: one has.
        """
        if self._lost is not None:
            self._told = True
            raise WorkerError(self._lost)

    def settle(self) -> None:
        """After an error in a fit of all processes, wait some seconds to learn whether another process has caused it.

        Raises:
            WorkerError: another process has died or failed.
        """
        until = time.monotonic() + _HEAR
        while self.size > 1 and time.monotonic() < until:
            self.check()
            time.sleep(SECONDS_A_LOOK)

    def end(self, well: bool) -> None:
        """Let the other processes end, and wait for the end of those that this process has started.

        Args:
            well: whether the run has ended without an error.
        """
        with self._lock:
            self._closing = self._closing or not self._told
        for link in self._links.values():
            link.send({"do": "end" if well else "stop"})
            if not well:
                link.close()
        until = time.monotonic() + _GRACE + _HEAR
        for child in self._children:
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._children:
            _forget(well)
        self._closing = True


class Follower:
    """A process of a run other than the first. It follows the first process's orders.

    Args:
        here: the rank of this process, and the number of processes.
        link: the connection to the first process.
        token: the secret by which the first process recognises this one.
    """

    def __init__(self, here: Place, link: Link, token: str) -> None:
        self.here, self._link = here, link
        self.idle, self.same = False, True
        self._orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._gone = threading.Event()
        link.send({"token": token, "rank": here.rank})
        self.hello: dict[str, Any] | None = link.receive()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while (order := self._link.receive()) is not None and order["do"] != "stop":
            self._orders.put(order)
            if order["do"] == "end":
                return
        if order is None and self.here.rank == 1:  # no other process is left to report it
            print("ehrdl: the first process was killed; all are stopped, and the same command resumes", file=sys.stderr)
        self._gone.set()
        self._orders.put(None)
        time.sleep(_GRACE)  # the main thread may wait for the first process for ever
        os._exit(1)

    def of(self, own: Leader) -> Follower:
        """Prepare this follower for one run of its script, and return it.

        A script may begin several runs. The follower stays idle in a run that the first process is not in.

        Args:
            own: the folder and configuration of the run in this process, as a `Leader`.
        """
        assert self.hello is not None
        self.idle, self.same = self.hello["run"] != own.run, self.hello["key"] == own.key
        return self

    def orders(self) -> Iterator[dict[str, Any]]:
        """Yield the orders of the first process until the run ends.

        Raises:
            ConfigError: the first process has another configuration.
            SystemExit: the first process has stopped the run, or has died.
        """
        while not self.idle:
            order = self._orders.get()
            if order is not None and not self.same:
                raise ConfigError("--config: is not that of the first process; has a file changed since the start?")
            if order is None:
                raise SystemExit(1)
            if order["do"] == "end":
                return
            yield order

    def reply(self, **what: Any) -> None:
        """Send a reply to the first process."""
        self._link.send(what)

    def leave(self) -> None:
        """End this process after the run, if ehrdl has started it for this run alone."""
        if self.here.starter == "ehrdl" and not self.idle:
            raise SystemExit(0)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report an error within the block to the first process, and end this process.

        An error that follows from the end of the first process is not reported.
        """
        try:
            yield
        except EhrdlError as error:
            self._fail(str(error), 2)
        except Exception as error:
            if self._gone.wait(_FOLLOWS_WITHIN):
                raise SystemExit(1) from None
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}", 1)

    def _fail(self, reason: str, status: int) -> NoReturn:
        self.reply(failed=" ".join(reason.split())[:500])
        self._gone.wait(_GRACE)  # otherwise torchrun would end the first process before it has reported
        raise SystemExit(status) from None


def _forget(well: bool) -> None:
    """Remove all traces of ended processes, for the next run of this process."""
    for name in _VARIABLES:
        os.environ.pop(name, None)
    if "torch.distributed" in sys.modules:
        from torch import distributed

        # nccl would wait for processes that died
        if distributed.is_initialized() and (well or distributed.get_backend() == "gloo"):
            distributed.destroy_process_group()


def _ended(code: int | None) -> str:
    if code is None:
        return "has ended"
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
