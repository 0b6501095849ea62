"""The command `ehrdl tune`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import yaml

from ehrdl.cli.configured import configured, named, train_parser
from ehrdl.cli.messages import explain
from ehrdl.cli.parser import Parser
from ehrdl.cli.start import one_line_errors, set_environment
from ehrdl.errors import ConfigError, MissingExtraError
from ehrdl.experiment.settings import Settings

DESCRIPTION = "Search the best values of a configuration's keys, on training and tuning patients alone."
EXAMPLE = "--config physionet2012 --data.source.root /path/to/physionet-2012 --n-trials 40"


def parser(prog: str) -> Parser:
    """Return the parser of the command's options: the keys of a training configuration, and those of the search."""
    made = train_parser(prog, DESCRIPTION, EXAMPLE)
    made.add_argument("--n-trials", type=int | None, metavar="N", help="trials in all; the same as tune.n_trials")
    made.add_argument("--baseline", type=str | None, metavar="NAME", help="tune this baseline; default: the deep model")
    return made


def run(argv: list[str], prog: str) -> None:
    """Search for the best values of a training configuration's keys."""
    set_environment()
    with one_line_errors(), named(argv) as argv:
        keys = parser(prog)
        objects, parsed = configured(keys, argv)
        config = yaml.safe_load(keys.dump(parsed, skip_unset=False))
        n_trials, baseline = config.pop("n_trials"), config.pop("baseline")
        options = objects.tune if n_trials is None else replace(objects.tune, n_trials=n_trials)
        options.searched(baseline)  # a fault of the space is reported before anything is imported
        if find_spec("optuna") is None:
            raise MissingExtraError("ehrdl tune needs optuna: pip install 'ehrdl[tune]'")
        from ehrdl.tune.tune import tune

        again = train_parser(prog)
        again.exit_on_error = False
        tune(lambda values: _with_values(again, config, values), options, baseline)


def _with_values(parser: Parser, config: dict[str, Any], values: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Return the settings for a resolved configuration with other values, and the changed configuration."""
    from ehrdl.options.search import with_values

    changed = with_values(config, values)
    try:
        return Settings.of(parser.instantiate(parser.parse_object(changed)), changed), changed
    except argparse.ArgumentError as error:
        raise ConfigError(f"tune.space: {explain(str(error), parser.keys())}") from None
