"""The command line: `ehrdl train`, which is `python train.py`, and its companions. One line an error, status 2."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ehrdl import __version__
from ehrdl.cli.allowed import HELP, OPTION, allowed_modules, config_files, take_option
from ehrdl.cli.classes import list_classes
from ehrdl.cli.configs import shipped, subject_of, with_shipped, write_config
from ehrdl.cli.messages import explain
from ehrdl.cli.parser import Parser, carried_over, check_files, fail
from ehrdl.cli.yaml_files import read_yaml
from ehrdl.engine.messages import say
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError, EhrdlError, MissingExtraError, is_disk_full, refused_path
from ehrdl.processes.ranks import begin_others_with, first_alone
from ehrdl.processes.signals import last_words, stoppable
from ehrdl.recorded import not_recorded

_TRAIN = "Train and compare models on one task, from a hospital's tables to a report."
_PREPARE = "Read and prepare a configuration's data, as training does first, and stop there."
_INIT = "Write a config that ehrdl ships, to edit and to train with."
_PRETRAIN = "Teach an encoder the language of a configuration's training notes, before any label is seen."
_TUNE = "Search the best values of a configuration's keys, on training and tuning patients alone."
_PREDICT = "Score new patients, or another hospital, with the models of a finished run."
_REPORT = "Make metrics.json and report.html of a PREDICTIONS file, whoever made it."
_EXPORT = "Write the events, labels and splits of a config, or predictions, as MEDS files for other tools."
#: How each command is called, after its name.
_EXAMPLES = {
    "train": "--config quickstart --run.name first --trainer.max_epochs 2",
    "prepare": "--config readmission_mimic4 --data.source.root /path/to/mimiciv",
    "pretrain": "--config readmission_mimic4 --data.source.root /path/to/mimiciv --out encoder",
    "tune": "--config physionet2012 --data.source.root /path/to/physionet-2012 --n-trials 40",
    "export": "--config readmission_mimic4 --data.source.root /path/to/mimiciv --out meds",
}
_SYNTHETIC, _LAYOUT = "ehrdl.sources.Synthetic", "ehrdl.sources.Mimic4"


def train_parser(prog: str = "ehrdl train", description: str = _TRAIN) -> Parser:
    """The parser of a training configuration; its keys are the arguments of `ehrdl.experiment.run`."""
    from ehrdl.experiment import run

    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file; several are layered, later ones win")
    parser.add_function_arguments(run, as_group=False, sub_configs=True, skip={"config"}, fail_untyped=False)
    parser.epilog = HELP
    parser.example = f"{prog} {_EXAMPLES.get(prog.rpartition(' ')[2], _EXAMPLES['train'])}"
    return parser


def train(argv: list[str] | None = None, prog: str = "train.py") -> None:
    """Parse a configuration and run it."""
    from ehrdl.experiment import run

    _set_environment()
    argv = sys.argv[1:] if argv is None else argv
    begin_others_with(["train", *argv])
    with _one_line_errors(), _named(argv) as argv:
        parser = train_parser(prog)
        objects, parsed = _configured(parser, argv)
        arguments = {name: value for name, value in vars(objects).items() if name != "config"}
        run(**arguments, config=yaml.safe_load(parser.dump(parsed, skip_unset=False)))


def _configured(parser: Parser, argv: list[str]) -> tuple[Any, Any]:
    """The objects of a configuration, and the configuration."""
    if argv in (["--help", "all"], ["-h", "all"]):
        parser.explains_all, argv = True, ["--help"]
    if argv and argv[-1].startswith("--") and argv[-1].endswith(".help"):
        print(list_classes(argv[-1][2:].removesuffix(".help"), parser.annotations()))
        raise SystemExit(0)
    check_files(argv, parser.annotations())
    parsed = parser.parse_args(argv)
    objects = parser.instantiate(parsed)
    for line in carried_over(argv, parsed):
        say(line)
    return objects, parsed


def prepare(argv: list[str], prog: str) -> None:
    """Prepare the data of a training configuration."""
    from ehrdl.experiment import prepare

    _set_environment()
    with _one_line_errors(), _named(argv) as argv:
        objects, _ = _configured(train_parser(prog, _PREPARE), argv)
        prepared, _ = prepare(objects.data, objects.task)
        facts = prepared.facts["data"]
        samples = ", ".join(f"{n:,} {split}" for split, n in facts["n_samples"].items())
        records = f", {facts['n_records']:,} verbalised records" if facts["n_records"] else ""
        say(f"prepared: {facts['n_facts']:,} facts, {facts['n_notes']:,} notes{records}; samples: {samples}")
        say(f"EVENTS: {prepared.events}\nnext: ehrdl train with the same arguments")


def pretrain(argv: list[str], prog: str) -> None:
    """Pretrain a note encoder on the training notes of a training configuration."""
    _set_environment()
    begin_others_with(["pretrain", *argv])
    with _one_line_errors(), _named(argv) as argv:
        parser = _pretrain_parser(prog)
        objects, parsed = _configured(parser, argv)
        if not objects.out:
            raise ConfigError("--out: missing; name the folder that the encoder goes to")
        from ehrdl.pretraining.command import pretrain

        start = os.path.expanduser(parsed["from"] or "") or _pretrained(
            yaml.safe_load(parser.dump(parsed, skip_unset=False)), objects.out
        )
        pretrain(objects.data, objects.task, expanded(objects.out), start, objects.pretrain, objects.trainer)


def _pretrain_parser(prog: str) -> Parser:
    """The parser of a training configuration, with what a pretraining is told besides."""
    from ehrdl.options.training import Pretraining

    parser = train_parser(prog, _PRETRAIN)
    parser.add_argument("--out", type=str | None, metavar="FOLDER", help="is made; must not hold anything yet")
    parser.add_argument(
        "--from",
        type=str | None,
        metavar="NAME_OR_FOLDER",
        help="Hugging Face encoder to go on from; default: the `pretrained` of the model's `note`, else from scratch",
    )
    parser.add_class_arguments(Pretraining, "pretrain")
    return parser


def _pretrained(config: dict[str, Any], out: str) -> str | None:
    """The encoder that a training configuration names, if that is not the one to be made."""
    from ehrdl.pretraining.command import PRETRAINED

    value: Any = config
    for key in PRETRAINED.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if value and expanded(value).resolve() != expanded(out).resolve() else None


def tune(argv: list[str], prog: str) -> None:
    """Search the space of a training configuration."""
    _set_environment()
    with _one_line_errors(), _named(argv) as argv:
        parser = train_parser(prog, _TUNE)
        parser.add_argument("--n-trials", type=int | None, metavar="N", help="trials in all; the same as tune.n_trials")
        parser.add_argument(
            "--baseline", type=str | None, metavar="NAME", help="tune this baseline; default: the deep model"
        )
        objects, parsed = _configured(parser, argv)
        config = yaml.safe_load(parser.dump(parsed, skip_unset=False))
        n_trials, baseline = config.pop("n_trials"), config.pop("baseline")
        options = objects.tune if n_trials is None else replace(objects.tune, n_trials=n_trials)
        options.searched(baseline)  # what is wrong with the space is said before anything is imported
        if find_spec("optuna") is None:
            raise MissingExtraError("ehrdl tune needs optuna: pip install 'ehrdl[tune]'")
        from ehrdl.tune.tune import tune

        again = train_parser(prog)
        again.exit_on_error = False
        tune(lambda values: _with_values(again, config, values), options, baseline)


def _with_values(parser: Parser, config: dict[str, Any], values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The objects of a resolved configuration with other values, and that configuration."""
    from ehrdl.options.search import with_values

    changed = with_values(config, values)
    try:
        return parser.instantiate(parser.parse_object(changed)), changed
    except argparse.ArgumentError as error:
        raise ConfigError(f"tune.space: {explain(str(error), parser.keys())}") from None


def predict(argv: list[str], prog: str) -> None:
    """Score new patients with the models of a finished run."""
    _set_environment()
    with _one_line_errors():
        options = _Options(prog=prog, description=_PREDICT, allow_abbrev=False)
        options.add_argument("--run", required=True, metavar="RUN", help="folder of a finished run")
        options.add_argument("--out", metavar="FOLDER", help="where the predictions go; default RUN/predict/<data>")
        options.epilog = (
            "Keys of data, task and trainer can follow: --data.source.root PATH names the new patients' tables"
        )
        options.add_argument(OPTION, metavar="NAME", help=f"{HELP}; of a run's own folder, none")
        names, rest = take_option(argv)
        own, overrides = options.parse_known_args(rest)
        run = expanded(own.run)
        _check_overrides(overrides)
        from ehrdl.scoring import check_run, score

        check_run(run)
        _check_recorded(run)
        parser, config = train_parser(prog), str(run / "config.yaml")
        with allowed_modules(names, {config: read_yaml(config)}, beside=False):
            parsed = parser.parse_args(["--config", config, *_source(run, overrides)])
            objects = parser.instantiate(parsed)
            out = expanded(own.out) if own.out else None
            score(run, objects.data, objects.task, objects.model, objects.trainer, out)


def _check_overrides(argv: list[str]) -> None:
    """Only the data, the task and the device may differ from the run."""
    allowed = ("data", "task", "trainer")
    for token in argv:
        if token.startswith("--") and token[2:].split("=")[0].split(".")[0] not in allowed:
            names = ", ".join(f"--{name}.…" for name in allowed)
            raise ConfigError(f"{token.split('=')[0]}: is fixed by the run; what may differ is {names}")


def _check_recorded(run: Path) -> None:
    """Refuse a run made through the library whose config cannot make its data, task or model again.

    Raises:
        ConfigError: naming the key, and the way that is left.
    """
    config, way = read_yaml(str(run / "config.yaml")), "score it from Python, with ehrdl.scoring.score"
    for name in ("data", "task", "model"):
        if not config.get(name):
            raise ConfigError(f"--run {run}: was made through the library, and its config.yaml names no {name}; {way}")
    for key, what in not_recorded(config):
        raise ConfigError(f"--run {run}: {key} was made in Python ({what}), which no config.yaml can do; {way}")


def _source(run: Path, overrides: list[str]) -> list[str]:
    """The overrides, with the reader of MIMIC-IV's layout where a synthetic run is given a hospital's folder."""
    source = read_yaml(str(run / "config.yaml"))["data"]["source"]
    class_path, arguments = source["class_path"], source.get("init_args") or {}
    named = [token.split("=")[0] for token in overrides]
    roots = [name for name in named if name in ("--data.source.root", "--data.source.init_args.root")]
    if class_path == _SYNTHETIC and roots and "--data.source" not in named and "--data.source.class_path" not in named:
        say(f"data.source: {_LAYOUT} reads the folder, since the run's own hospital was synthetic")
        return ["--data.source", _LAYOUT, *overrides]
    if roots and arguments.get("note_root") and not any(name.endswith(".note_root") for name in named):
        say("data.source.note_root: the run's own notes are not read; name the new hospital's, or they are its root's")
        return ["--data.source.note_root=null", *overrides]
    return overrides


def report(argv: list[str], prog: str) -> None:
    """Make a report of PREDICTIONS."""
    _set_environment()
    with _one_line_errors():
        options = _Options(prog=prog, description=_REPORT, allow_abbrev=False)
        options.add_argument(
            "predictions", metavar="PREDICTIONS", help="predictions.parquet, or the folder that holds it"
        )
        options.add_argument("--out", metavar="FOLDER", help="where metrics.json and report.html go; default beside it")
        options.add_argument(
            "--min-count",
            type=int,
            metavar="N",
            help="groups of fewer patients are not shown; default: the run's, or 10",
        )
        own = options.parse_args(argv)
        from ehrdl.engine.messages import progress
        from ehrdl.report.remake import remake

        with progress() as bar:
            job = bar.add_task("bootstrap", total=1000)
            out = expanded(own.out) if own.out else None
            path = remake(expanded(own.predictions), out, lambda n: bar.advance(job, n), own.min_count)
        say(f"report: {path}")


def export(argv: list[str], prog: str) -> None:
    """Write what other MEDS tools read."""
    _set_environment()
    with _one_line_errors():
        options = _Options(prog=prog, description=_EXPORT, allow_abbrev=False)
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
        own, overrides = options.parse_known_args(argv)
        if own.predictions is None:
            with _named(overrides) as overrides:
                _export_events(own, overrides, prog)
        elif own.time or overrides:
            raise ConfigError(f"{'--time' if own.time else overrides[0]}: does not go with --predictions")
        else:
            from ehrdl.report.export import export_predictions

            export_predictions(expanded(own.predictions), expanded(own.out))


def _export_events(own: argparse.Namespace, overrides: list[str], prog: str) -> None:
    objects, _ = _configured(train_parser(prog), overrides)
    from ehrdl.data.export import export_events

    export_events(objects.data, objects.task, expanded(own.out), own.time or "happened")


def init(argv: list[str], prog: str) -> None:
    """Write a shipped config to edit, or list them."""
    parser = _Options(prog=prog, description=f"{_INIT} Without NAME the shipped ones are listed.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the config, such as quickstart")
    parser.add_argument("--out", metavar="FILE", help="default: NAME.yaml in the current folder")
    own = parser.parse_args(argv)
    with _one_line_errors():
        if own.name is None:
            print("\n".join(f"  {name:<26} {subject_of(file)}" for name, file in shipped().items()))
            return
        file = write_config(own.name, own.out)
        print(f"{file}: edit it, then: ehrdl train --config {file}")


class _Options(argparse.ArgumentParser):
    """A small parser whose every error is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the reason and exit with status 2."""
        fail(f"{message} (see {self.prog} --help)")


_COMMANDS: dict[str, tuple[Callable[[list[str], str], None], str]] = {
    "init": (init, _INIT),
    "train": (train, _TRAIN),
    "prepare": (prepare, _PREPARE),
    "pretrain": (pretrain, _PRETRAIN),
    "tune": (tune, _TUNE),
    "predict": (predict, _PREDICT),
    "report": (report, _REPORT),
    "export": (export, _EXPORT),
}


def main(argv: list[str] | None = None) -> None:
    """The console command `ehrdl`."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    if name in _COMMANDS:
        if name not in ("train", "pretrain"):
            first_alone(f"ehrdl {name}")
        _COMMANDS[name][0](argv[1:], f"ehrdl {name}")
    elif name == "--version":
        print(f"ehrdl {__version__}")
    elif name in ("-h", "--help"):
        lines = [f"  {command:<10} {text}" for command, (_, text) in _COMMANDS.items()]
        print("\n".join(["usage: ehrdl COMMAND [--help]", "", *lines]))
    else:
        fail(f"{name!r} is not a command; the commands are {', '.join(_COMMANDS)}")


@contextmanager
def _named(argv: list[str]) -> Iterator[list[str]]:
    """A command line without what it allows to be imported; within, its configs name that and no more."""
    names, rest = take_option(with_shipped(argv))
    with allowed_modules(names, {file: read_yaml(file) for file in config_files(rest)}, rest):
        yield rest


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that ehrdl raises on purpose become one line; anything else is a bug and keeps its traceback."""
    try:
        with stoppable():
            yield
    except EhrdlError as error:
        fail(" ".join(str(error).split()))
    except Exception as error:
        if is_disk_full(error):
            reason = " ".join(str(error).split())[:200]
            fail(f"the disk is full ({reason}); free some space, or move data.prepare.cache and run.root")
        if refused := refused_path(error):
            fail(f"{refused}; see who may read and write there, or name another place")
        raise
    except KeyboardInterrupt:
        last_words()
        raise SystemExit(130) from None


def _set_environment() -> None:
    """Settings that must stand before torch and tokenizers are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
