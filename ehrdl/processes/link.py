"""A connection between two processes of one run, for messages and for noticing that the other process has died.

The operating system closes a socket when its process ends for any reason. It also probes whether the other machine
still answers. Heartbeat messages are therefore not needed. A process that is busy for an hour could not send them.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

#: Seconds until the first probe of the other machine, seconds between probes, and number of probes that may fail.
_PROBES = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))


class Link:
    """This process's end of a connection to another process. Messages are JSON, one per line."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES:
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket = connected
        self._lines = connected.makefile("r", encoding="utf-8")

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. If the other process has died, the message is lost, and `receive` returns None."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message, and return it; None = the other process has ended."""
        try:
            line = self._lines.readline()
            message = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError):
            message = None
        if isinstance(message, dict):
            return message
        self._lines.close()
        self._socket.close()
        return None

    def close(self) -> None:
        """Close the connection. At the other end, `receive` then returns None."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def listen(host: str) -> socket.socket:
    """Listen on a free port of the address `host`. If this machine has no such address, listen on all addresses."""
    try:
        return socket.create_server((host, 0))
    except OSError:
        return socket.create_server(("", 0))


def connect(host: str, port: int, timeout: float) -> Link:
    """Connect to a process that listens at an address and port, and return the connection.

    Raises:
        OSError: no process listens there, or it does not answer within `timeout` [s].
    """
    connected = socket.create_connection((host, port), timeout)
    connected.settimeout(None)
    return Link(connected)
