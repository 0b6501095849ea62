"""The command `ehrdl trail`."""

from __future__ import annotations

from typing import Any

from ehrdl.cli.start import OptionParser, one_line_errors, set_environment
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError

DESCRIPTION = "Check the audit trail of a folder of runs: who did what with which data, and whether a line is missing."


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's options."""
    options = OptionParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    options.add_argument("folder", metavar="FOLDER", help="the folder of the runs (run.root), which holds audit.jsonl")
    return options


def run(argv: list[str], prog: str) -> None:
    """Print the entries of an audit trail. A line that was changed, removed, moved or added is an error."""
    set_environment()
    with one_line_errors():
        own = parser(prog).parse_args(argv)
        from ehrdl.runs.chain import faults, read_trail

        trail = read_trail(expanded(own.folder))
        for number, entry in zip(trail.lines, trail.entries, strict=True):
            print(_shown(number, entry))
        for number in trail.cut:
            print(f"line {number}: was left incomplete by a process that was killed")
        found = list(faults(trail.path.parent, trail))
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ConfigError(found[0] + more)
        newest = trail.entries[-1]["hash"] if trail.entries else "none"
        n = len(trail.entries)
        print(f"{trail.path}: {n:,} {'entry is' if n == 1 else 'entries are'} intact; the newest is {newest}")


def _shown(number: int, entry: dict[str, Any]) -> str:
    """Return one line about an entry: when, who, what, and on which run and data."""
    what = [str(entry.get(key)) for key in ("run", "source", "events") if entry.get(key)]
    who = f"{entry.get('user') or entry.get('uid')}@{entry.get('host')}"
    return f"{number:>5}  {entry.get('time')}  {who}  {entry.get('action')}  {' '.join(what)}".rstrip()
