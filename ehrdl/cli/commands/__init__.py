"""A module per command, with `DESCRIPTION`, `parser(prog)` and `run(argv, prog)`."""

from __future__ import annotations

from argparse import ArgumentParser
from importlib import import_module
from typing import Protocol, cast

#: Every command, in the order of the overview.
NAMES = ("init", "train", "prepare", "pretrain", "tune", "predict", "report", "export", "completion")


class Command(Protocol):
    """What a module here holds."""

    DESCRIPTION: str

    def parser(self, prog: str) -> ArgumentParser:
        """The options of the command."""

    def run(self, argv: list[str], prog: str) -> None:
        """Carry the command out."""


def command(name: str) -> Command:
    """The module of a command.

    Args:
        name: one of `NAMES`.
    """
    return cast(Command, import_module(f"{__name__.removesuffix('.__init__')}.{name}"))
