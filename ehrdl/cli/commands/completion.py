"""The command `ehrdl completion`."""

from __future__ import annotations

import argparse

from ehrdl.cli.commands import NAMES, command
from ehrdl.cli.configs import shipped
from ehrdl.cli.parser import Parser
from ehrdl.cli.start import OptionParser

DESCRIPTION = "Print a script with which a shell completes commands, keys and files."
#: Options that name a file or a folder.
_FILES = ("--config", "--out", "--predictions", "--run", "predictions", "folder")


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's options."""
    import shtab

    options = OptionParser(prog=prog, description=DESCRIPTION)
    options.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    options.epilog = f'bash and zsh: eval "$({prog} bash)" in your shell\'s startup file'
    return options


def run(argv: list[str], prog: str) -> None:
    """Print the script with which a shell, such as bash, completes ehrdl's commands and options."""
    import shtab

    own = parser(prog).parse_args(argv)
    print(shtab.complete(_everything(), shell=own.shell))


def _everything() -> argparse.ArgumentParser:
    """Build one parser with all commands and their options, for shtab."""
    import shtab

    whole = argparse.ArgumentParser(prog="ehrdl")
    whole.add_argument("--version", action="store_true")
    commands = whole.add_subparsers()
    for name in NAMES:
        one = commands.add_parser(name, help=command(name).DESCRIPTION)
        for option, choices in _options(command(name).parser(f"ehrdl {name}")).items():
            added: argparse.Action = one.add_argument(option, choices=choices, help=" ")
            if option in _FILES:
                added.complete = shtab.FILE  # type: ignore[attr-defined]
    return whole


def _options(made: argparse.ArgumentParser) -> dict[str, list[str] | None]:
    """Return the options of a command, each with its choices if it has any."""
    if isinstance(made, Parser):
        keys = made.keys()
        return dict.fromkeys(
            ["--config", *(action.option_strings[-1] for action in made._actions if action.dest in keys)]
        )
    found: dict[str, list[str] | None] = {}
    for action in made._actions:
        name = action.option_strings[-1] if action.option_strings else action.dest
        if name != "--help":
            found[name] = [*shipped()] if name == "name" else list(action.choices) if action.choices else None
    return found
