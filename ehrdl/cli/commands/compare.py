"""The command `ehrdl compare`."""

from __future__ import annotations

from pathlib import Path

from ehrdl.cli.start import OptionParser, one_line_errors, set_environment
from ehrdl.engine.paths import expanded

DESCRIPTION = "Put finished runs side by side in one report, and pool seeds that were fitted apart."


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's options."""
    options = OptionParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    options.add_argument("runs", metavar="RUN", nargs="+", help="folder of a finished run; two or more")
    options.add_argument("--out", metavar="FOLDER", required=True, help="where metrics.json and report.html go")
    options.add_argument(
        "--min-count", type=int, metavar="N", default=10, help="groups of fewer patients are not shown; default: 10"
    )
    return options


def run(argv: list[str], prog: str) -> None:
    """Compare finished runs."""
    set_environment()
    with one_line_errors():
        own = parser(prog).parse_args(argv)
        from ehrdl.compare import compare
        from ehrdl.engine.messages import progress
        from ehrdl.options.training import ReportOptions

        options = ReportOptions(min_count=own.min_count)
        with progress() as bar:
            job = bar.add_task("bootstrap", total=1000)
            runs: list[Path] = [expanded(run) for run in own.runs]
            compare(runs, expanded(own.out), options, lambda n: bar.advance(job, n))
