"""The console command `ehrdl`, with one module per command in `commands/`. An error is one line, with exit status 2."""

from __future__ import annotations

import sys

from ehrdl import __version__
from ehrdl.cli.commands import NAMES, command
from ehrdl.cli.parser import fail
from ehrdl.processes.ranks import first_alone


def main(argv: list[str] | None = None) -> None:
    """Run the console command `ehrdl`.

    Args:
        argv: the command-line arguments; None = those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    if name in NAMES:
        if name not in ("train", "pretrain"):
            first_alone(f"ehrdl {name}")
        command(name).run(argv[1:], f"ehrdl {name}")
    elif name == "--version":
        print(f"ehrdl {__version__}")
    elif name in ("-h", "--help"):
        lines = [f"  {each:<11} {command(each).DESCRIPTION}" for each in NAMES]
        print("\n".join(["usage: ehrdl COMMAND [--help]", "", *lines]))
    else:
        fail(f"{name!r} is not a command; the commands are {', '.join(NAMES)}")
