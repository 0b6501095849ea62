"""The command line: `ehrdl train --config …`, which is `python train.py --config …`. One line an error, exit status 2."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser

from ehrdl import __version__
from ehrdl.errors import EhrdlError

_TRAIN = "Train and compare models on one task, from a hospital's tables to a report."


class Parser(ArgumentParser):
    """A parser whose every error is one line that names the innermost key, the value and what is allowed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason and exit with status 2."""
        fail(explain(message, [action.dest for action in self._actions]))


def train_parser(prog: str = "ehrdl train") -> Parser:
    """The parser of a training configuration; its keys are the arguments of `ehrdl.experiment.run`."""
    from ehrdl.experiment import run

    parser = Parser(prog=prog, description=_TRAIN)
    parser.add_argument("--config", action="config", help="YAML file; several are layered, later ones win")
    parser.add_function_arguments(run, as_group=False, sub_configs=True, skip={"config"})
    return parser


def train(argv: list[str] | None = None, prog: str = "train.py") -> None:
    """Parse a configuration and run it."""
    from ehrdl.experiment import run

    _set_environment()
    with _one_line_errors():
        parser = train_parser(prog)
        parsed = parser.parse_args(argv)
        objects = parser.instantiate(parsed)
        arguments = {name: value for name, value in vars(objects).items() if name != "config"}
        run(**arguments, config=yaml.safe_load(parser.dump(parsed, skip_unset=False)))


_COMMANDS: dict[str, tuple[Callable[[list[str], str], None], str]] = {"train": (train, _TRAIN)}


def main(argv: list[str] | None = None) -> None:
    """The console command `ehrdl`."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    if name in _COMMANDS:
        _COMMANDS[name][0](argv[1:], f"ehrdl {name}")
    elif name == "--version":
        print(f"ehrdl {__version__}")
    elif name in ("-h", "--help"):
        lines = [f"  {command:<10} {text}" for command, (_, text) in _COMMANDS.items()]
        print("\n".join(["usage: ehrdl COMMAND [--help]", "", *lines]))
    else:
        fail(f"{name!r} is not a command; the commands are {', '.join(_COMMANDS)}")


def fail(line: str) -> NoReturn:
    """One line on standard error, exit status 2."""
    print(f"ehrdl: {line}", file=sys.stderr)
    raise SystemExit(2)


def explain(message: str, keys: list[str]) -> str:
    """The parser's message as one line.

    >>> explain('Parser key "optim.lr":\\n  Expected a <class \\'float\\'>. Got value: fast', [])
    "optim.lr: expected float, got 'fast'"
    >>> explain("Group 'optim' does not accept option 'lrr'", ["optim.lr", "optim.warmup"])
    'optim.lrr: there is no such key; did you mean lr? Allowed: lr, warmup'
    """
    text = " ".join(message.split())
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return _unknown(f"{match[1]}.{match[2]}", keys)
    if match := re.search(r"Option '([\w.]+)' is not accepted", text) or re.search(r"unrecognized arguments: --(\S+)", text):
        return _unknown(match[1].split("=")[0], keys)
    if match := re.search(r"the following arguments are required: (.+)", text):
        return f"{match[1]}: missing; give a --config, for example configs/quickstart.yaml"
    parts = re.findall(r'Parser key "([\w.]+)": ', text)
    if not parts:
        return text
    reason = text.rsplit(f'Parser key "{parts[-1]}": ', 1)[1]
    if match := re.fullmatch(r"Expected a (.+?)\. Got value: (.*)", reason):
        wanted = re.sub(r"<class '([\w.]+)'>", r"\1", match[1])
        choices = re.fullmatch(r"typing\.Literal\[(.+)\]", wanted)
        return f"{parts[-1]}: expected {f'one of {choices[1]}' if choices else wanted}, got {match[2]!r}"
    return f"{parts[-1]}: {reason}"


def _unknown(key: str, keys: list[str]) -> str:
    """A key that does not exist, with its nearest neighbour and its siblings where they are known."""
    parent, _, name = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    siblings = sorted({dest[len(prefix) :].split(".")[0] for dest in keys if dest.startswith(prefix)} - {"help"})
    if not parent:  # also what a class_path does not take: its parameters are not the parser's keys
        siblings = [name for name in siblings if name in _TOP]
        near = get_close_matches(name, siblings, 1)
        return f"{key}: there is no such key{f'; did you mean {near[0]}?' if near else ' here; see --help'}"
    near = get_close_matches(name, siblings, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{key}: there is no such key{hint} Allowed: {', '.join(siblings)}"


_TOP = ("run", "data", "task", "model", "seeds", "optim", "trainer", "baselines", "config")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that ehrdl raises on purpose become one line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except EhrdlError as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("ehrdl: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _set_environment() -> None:
    """Settings that must stand before torch and tokenizers are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
