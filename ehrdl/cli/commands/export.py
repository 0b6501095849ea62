"""The command `ehrdl export`."""

from __future__ import annotations

import argparse

from ehrdl.cli.allowed import OPTION
from ehrdl.cli.configured import configured, named, train_parser
from ehrdl.cli.start import OptionParser, one_line_errors, set_environment
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError

DESCRIPTION = "Write the events, labels and splits of a config, or predictions, as MEDS files for other tools."
EXAMPLE = "--config readmission_mimic4 --data.source.root /path/to/mimiciv --out meds"


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's own options. On the command line, keys of a config can follow them."""
    options = OptionParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    options.usage = f"{prog} --out FOLDER (--config FILE [--KEY VALUE ...] [--time TIME] | --predictions FILE)"
    options.add_argument("--out", required=True, metavar="FOLDER", help="is made; must not hold anything yet")
    options.add_argument(
        "--time",
        choices=("happened", "available"),
        help="of the events: when they happened (default), or when they could be seen (time := available_time)",
    )
    options.add_argument(
        "--predictions", metavar="FILE", help="predictions.parquet, or the run that holds it, for meds-evaluation"
    )
    options.epilog = f"--config and the keys that can follow are those of ehrdl train, as is {OPTION}"
    return options


def run(argv: list[str], prog: str) -> None:
    """Export the events, labels and splits of a config, or a PREDICTIONS file, in the MEDS format."""
    set_environment()
    with one_line_errors():
        own, overrides = parser(prog).parse_known_args(argv)
        if own.predictions is None:
            with named(overrides) as overrides:
                _export_events(own, overrides, prog)
        elif own.time or overrides:
            raise ConfigError(f"{'--time' if own.time else overrides[0]}: does not go with --predictions")
        else:
            from ehrdl.report.export import export_predictions
            from ehrdl.runs import trail

            given = expanded(own.predictions)
            export_predictions(given, expanded(own.out))
            run = (given if given.is_dir() else given.parent).resolve()
            trail.enter(run.parent, "export", {"run": run.name, "out": own.out})


def _export_events(own: argparse.Namespace, overrides: list[str], prog: str) -> None:
    objects, _ = configured(train_parser(prog, DESCRIPTION, EXAMPLE), overrides)
    from ehrdl.data.export import export_events
    from ehrdl.runs import trail

    export_events(objects.data, objects.task, expanded(own.out), own.time or "happened")
    traced = {"source": type(objects.data.source).__name__, "out": own.out}
    trail.enter(expanded(objects.run.root), "export", traced)
