"""The command `ehrdl predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ehrdl.cli.allowed import HELP, OPTION, allowed_modules, take_option
from ehrdl.cli.configured import train_parser
from ehrdl.cli.start import OptionParser, one_line_errors, set_environment
from ehrdl.cli.yaml_files import read_yaml
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.recorded import not_recorded

_SYNTHETIC, _LAYOUT = "Synthetic", "ehrdl.sources.Mimic4"

DESCRIPTION = "Score new patients, or another hospital, with the models of a finished run."


def parser(prog: str) -> OptionParser:
    """Return the parser of the command's own options. Options such as `--data.source.root` can follow them."""
    options = OptionParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    options.add_argument("--run", required=True, metavar="RUN", help="folder of a finished run")
    options.add_argument("--out", metavar="FOLDER", help="where the predictions go; default RUN/predict/<data>")
    options.add_argument(
        "--same-hospital",
        action="store_true",
        help="the patients are of the run's own hospital, from another time: the report says temporal validation",
    )
    options.epilog = "Keys of data, task and trainer can follow: --data.source.root PATH names the new patients' tables"
    options.add_argument(OPTION, metavar="NAME", help=f"{HELP}; of a run's own folder, none")
    return options


def run(argv: list[str], prog: str) -> None:
    """Score new patients with the models of a finished run."""
    set_environment()
    with one_line_errors():
        names, rest = take_option(argv)
        own, overrides = parser(prog).parse_known_args(rest)
        run = expanded(own.run)
        _check_overrides(overrides)
        from ehrdl.scoring import check_run, score

        finished = check_run(run)
        with recorded_settings(run, overrides, names) as objects:
            out = expanded(own.out) if own.out else None
            score(finished, objects.data, objects.task, objects.model, objects.trainer, out, own.same_hospital)


@contextmanager
def recorded_settings(run: Path, overrides: Sequence[str] = (), allow: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the objects that a run's `config.yaml` describes: data, task, model, trainer and others.

    Inside the `with` block, only classes of allowed modules may be imported.

    Args:
        run: the run's folder.
        overrides: the command-line options that replace keys of the config.
        allow: further modules whose classes may be imported.

    Raises:
        ConfigError: the run was made from Python, with objects that `config.yaml` cannot recreate.
    """
    _check_recorded(run)
    made, config = train_parser("ehrdl predict"), str(run / "config.yaml")
    with allowed_modules(list(allow), {config: read_yaml(config)}, beside=False):
        yield made.instantiate(made.parse_args(["--config", config, *_source(run, list(overrides))]))


def _check_overrides(argv: list[str]) -> None:
    """Refuse options that do not begin with `--data`, `--task` or `--trainer`."""
    allowed = ("data", "task", "trainer")
    for token in argv:
        if token.startswith("--") and token[2:].split("=")[0].split(".")[0] not in allowed:
            names = ", ".join(f"--{name}.…" for name in allowed)
            raise ConfigError(f"{token.split('=')[0]}: is fixed by the run; what may differ is {names}")


def _check_recorded(run: Path) -> None:
    """Refuse a run if its `config.yaml` cannot recreate its data, task or model, because they were made in Python.

    Raises:
        ConfigError: the data, task or model cannot be recreated. The message names the key and says how to score the
            run instead.
    """
    config, way = read_yaml(str(run / "config.yaml")), "score it from Python, with ehrdl.scoring.score"
    for name in ("data", "task", "model"):
        if not config.get(name):
            raise ConfigError(f"--run {run}: was made through the library, and its config.yaml names no {name}; {way}")
    for key, what in not_recorded(config):
        raise ConfigError(f"--run {run}: {key} was made in Python ({what}), which no config.yaml can do; {way}")


def _source(run: Path, overrides: list[str]) -> list[str]:
    """Return the overrides, adapted to the folder of another hospital.

    If the run's hospital was synthetic, the given folder is read in MIMIC-IV's layout. If the run read its notes from a
    separate folder, that folder is not read for the new hospital.
    """
    source = read_yaml(str(run / "config.yaml"))["data"]["source"]
    class_path, arguments = source["class_path"], source.get("init_args") or {}
    named = [token.split("=")[0] for token in overrides]
    roots = [name for name in named if name in ("--data.source.root", "--data.source.init_args.root")]
    if (
        class_path.rpartition(".")[2] == _SYNTHETIC
        and roots
        and "--data.source" not in named
        and "--data.source.class_path" not in named
    ):
        say(f"data.source: {_LAYOUT} reads the folder, since the run's own hospital was synthetic")
        return ["--data.source", _LAYOUT, *overrides]
    if roots and arguments.get("note_root") and not any(name.endswith(".note_root") for name in named):
        say("data.source.note_root: the run's own notes are not read; name the new hospital's, or they are its root's")
        return ["--data.source.note_root=null", *overrides]
    return overrides
