"""The command `ehrdl init`."""

from __future__ import annotations

from ehrdl.cli.configs import shipped, subject_of, write_config
from ehrdl.cli.start import OptionParser, one_line_errors

DESCRIPTION = "Write a config that ehrdl ships, to edit and to train with."


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's options."""
    options = OptionParser(prog=prog, description=f"{DESCRIPTION} Without NAME the shipped ones are listed.")
    options.add_argument("name", nargs="?", metavar="NAME", help="of the config, such as quickstart")
    options.add_argument("--out", metavar="FILE", help="default: NAME.yaml in the current folder")
    return options


def run(argv: list[str], prog: str) -> None:
    """Write a shipped config for editing, or list the shipped configs."""
    own = parser(prog).parse_args(argv)
    with one_line_errors():
        if own.name is None:
            print("\n".join(f"  {name:<26} {subject_of(file)}" for name, file in shipped().items()))
            return
        file = write_config(own.name, own.out)
        print(f"{file}: edit it, then: ehrdl train --config {file}")
