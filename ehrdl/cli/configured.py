"""Turns a command line into the objects of a training configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ehrdl.cli.allowed import HELP, allowed_modules, config_files, take_option
from ehrdl.cli.classes import list_classes
from ehrdl.cli.configs import with_shipped
from ehrdl.cli.parser import Parser, carried_over, check_files, check_help
from ehrdl.cli.yaml_files import read_yaml
from ehrdl.engine.messages import say

TRAIN = "Train and compare models on one task, from a hospital's tables to a report."
TRAIN_EXAMPLE = "--config quickstart --run.name first --trainer.max_epochs 2"


def train_parser(prog: str = "ehrdl train", description: str = TRAIN, example: str = TRAIN_EXAMPLE) -> Parser:
    """Return the parser of a training configuration. Its keys are the fields of `Settings`."""
    from ehrdl.experiment.settings import Settings

    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file; several are layered, later ones win")
    parser.add_class_arguments(Settings, as_group=False, sub_configs=True, skip={"config"}, fail_untyped=False)
    parser.epilog = HELP
    parser.example = f"{prog} {example}"
    return parser


def configured(parser: Parser, argv: list[str]) -> tuple[Any, Any]:
    """Parse a command line into a configuration. For a request of help, print the help and exit.

    Returns:
        The objects that the configuration describes, and the configuration as parsed values.
    """
    if argv in (["--help", "all"], ["-h", "all"]):
        parser.explains_all, argv = True, ["--help"]
    if argv and argv[-1].startswith("--") and argv[-1].endswith(".help"):
        print(list_classes(argv[-1][2:].removesuffix(".help"), parser.annotations()))
        raise SystemExit(0)
    check_help(argv)
    check_files(argv, parser.annotations())
    parsed = parser.parse_args(argv)
    objects = parser.instantiate(parsed)
    for line in carried_over(argv, parsed):
        say(line)
    return objects, parsed


@contextmanager
def named(argv: list[str]) -> Iterator[list[str]]:
    """Yield a command line without its `--allow-module` options, and with shipped configs replaced by their files.

    Inside the `with` block, a configuration may name classes of allowed modules only.
    """
    names, rest = take_option(with_shipped(argv))
    with allowed_modules(names, {file: read_yaml(file) for file in config_files(rest)}, rest):
        yield rest
