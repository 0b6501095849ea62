"""The command `ehrdl train`, which is the same as `python train.py`."""

from __future__ import annotations

import sys

import yaml

from ehrdl.cli.configured import TRAIN, configured, named, train_parser
from ehrdl.cli.parser import Parser
from ehrdl.cli.start import one_line_errors, set_environment
from ehrdl.processes.ranks import begin_others_with

DESCRIPTION = TRAIN


def parser(prog: str) -> Parser:
    """Return the parser of the command's options, which are the keys of a training configuration."""
    return train_parser(prog)


def run(argv: list[str] | None = None, prog: str = "train.py") -> None:
    """Train and compare the models of a configuration, and write the report.

    Args:
        argv: the command-line arguments after the command's name; None = those of this process.
        prog: the name of the command, for its help.
    """
    from ehrdl.experiment.experiment import Experiment

    set_environment()
    argv = sys.argv[1:] if argv is None else argv
    begin_others_with(["train", *argv])
    with one_line_errors(), named(argv) as argv:
        keys = parser(prog)
        objects, parsed = configured(keys, argv)
        Experiment.of(objects, yaml.safe_load(keys.dump(parsed, skip_unset=False))).complete()
