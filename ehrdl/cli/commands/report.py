"""The command `ehrdl report`."""

from __future__ import annotations

from ehrdl.cli.start import OptionParser, one_line_errors, set_environment
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded

DESCRIPTION = "Make report.html, metrics.json, checklists and a model card of a PREDICTIONS file, whoever made it."


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's options."""
    options = OptionParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    options.add_argument("predictions", metavar="PREDICTIONS", help="predictions.parquet, or the folder that holds it")
    options.add_argument("--out", metavar="FOLDER", help="where the report and its files go; default beside it")
    options.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="groups of fewer patients are not shown; default: the run's, or 10",
    )
    options.add_argument(
        "--risks",
        type=float,
        nargs="+",
        metavar="RISK",
        help="thresholds at which alarms are scored; default: the run's, or 0.1 and 0.2",
    )
    options.add_argument(
        "--groups",
        nargs="+",
        metavar="COLUMN",
        help="groups that are shown: columns, and pairs such as 'sex x race'; default: the run's, or all columns",
    )
    options.add_argument(
        "--group-file",
        "--group_file",
        metavar="FILE",
        help="CSV or Parquet file of further groups: subject_id or sample_id, and one column per grouping",
    )
    return options


def run(argv: list[str], prog: str) -> None:
    """Make the report, the metrics, the checklists and the model card of a PREDICTIONS file."""
    set_environment()
    with one_line_errors():
        own = parser(prog).parse_args(argv)
        from ehrdl.engine.messages import progress
        from ehrdl.report.remake import remake

        with progress() as bar:
            job = bar.add_task("bootstrap", total=1000)
            out = expanded(own.out) if own.out else None
            asked = {name: getattr(own, name) for name in ("min_count", "risks", "groups", "group_file")}
            path = remake(expanded(own.predictions), out, lambda n: bar.advance(job, n), **asked)
        say(f"report: {path}")
