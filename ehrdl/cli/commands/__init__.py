"""The commands of ehrdl. Each is a module with `DESCRIPTION`, `parser(prog)` and `run(argv, prog)`."""

from __future__ import annotations

from argparse import ArgumentParser
from importlib import import_module
from typing import Protocol, cast

#: Every command, in the order of the overview.
NAMES = (
    "init",
    "train",
    "prepare",
    "pretrain",
    "tune",
    "predict",
    "report",
    "compare",
    "export",
    "trail",
    "completion",
)


class Command(Protocol):
    """The names that the module of each command defines."""

    DESCRIPTION: str

    def parser(self, prog: str) -> ArgumentParser:
        """Return the parser of the command's options."""

    def run(self, argv: list[str], prog: str) -> None:
        """Run the command."""


def command(name: str) -> Command:
    """Return the module of a command.

    Args:
        name: one of `NAMES`.
    """
    return cast(Command, import_module(f"{__name__.removesuffix('.__init__')}.{name}"))
