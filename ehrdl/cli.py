"""The command line: `ehrdl train`, which is `python train.py`, and its companions. One line an error, status 2."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser

from ehrdl import __version__
from ehrdl.engine import say
from ehrdl.errors import ConfigError, EhrdlError

_TRAIN = "Train and compare models on one task, from a hospital's tables to a report."
_PREPARE = "Read and prepare a configuration's data, as training does first, and stop there."
_PREDICT = "Score new patients, or another hospital, with the models of a finished run."
_REPORT = "Make metrics.json and report.html of a PREDICTIONS file, whoever made it."
_SYNTHETIC, _LAYOUT = "ehrdl.data.sources.synthetic.Synthetic", "ehrdl.data.sources.mimic4.Mimic4"
#: Actions of the parser that are no key of a configuration.
_NOT_KEYS = ("help", "config", "print_config", "print_shtab")


class Parser(ArgumentParser):
    """A parser whose every error is one line that names the innermost key, the value and what is allowed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason and exit with status 2."""
        if self.exit_on_error:
            fail(explain(message, self.keys()))
        # The inner parser of one class: it alone knows what the class takes. The outer one adds where the class stands.
        takes = f" [takes {', '.join(self.keys())}]" if "is not accepted" in message else ""
        super().error(message + takes, ex)
        raise AssertionError("unreachable")

    def keys(self) -> dict[str, str]:
        """The keys of a configuration, each with the name of its type."""
        actions = [action for action in self._actions if action.dest.split(".")[-1] not in _NOT_KEYS]
        return {action.dest: getattr(getattr(action, "_typehint", None), "__name__", "") for action in actions}


def train_parser(prog: str = "ehrdl train", description: str = _TRAIN) -> Parser:
    """The parser of a training configuration; its keys are the arguments of `ehrdl.experiment.run`."""
    from ehrdl.experiment import run

    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file; several are layered, later ones win")
    parser.add_function_arguments(run, as_group=False, sub_configs=True, skip={"config"})
    return parser


def train(argv: list[str] | None = None, prog: str = "train.py") -> None:
    """Parse a configuration and run it."""
    from ehrdl.experiment import run

    _set_environment()
    argv = sys.argv[1:] if argv is None else argv
    with _one_line_errors():
        parser = train_parser(prog)
        objects, parsed = _configured(parser, argv)
        arguments = {name: value for name, value in vars(objects).items() if name != "config"}
        run(**arguments, config=yaml.safe_load(parser.dump(parsed, skip_unset=False)))


def _configured(parser: Parser, argv: list[str]) -> tuple[Any, Any]:
    """The objects of a configuration, and the configuration."""
    check_files(argv, list(parser.keys()))
    parsed = parser.parse_args(argv)
    return parser.instantiate(parsed), parsed


def prepare(argv: list[str], prog: str) -> None:
    """Prepare the data of a training configuration."""
    from ehrdl.experiment import prepare

    _set_environment()
    with _one_line_errors():
        objects, _ = _configured(train_parser(prog, _PREPARE), argv)
        prepared, _ = prepare(objects.data, objects.task)
        facts = prepared.facts["data"]
        samples = ", ".join(f"{n:,} {split}" for split, n in facts["n_samples"].items())
        say(f"prepared: {facts['n_facts']:,} facts, {facts['n_notes']:,} notes; samples: {samples}")
        say(f"EVENTS: {prepared.events}\nnext: ehrdl train with the same arguments")


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
        own, overrides = options.parse_known_args(argv)
        run = Path(own.run)
        _check_overrides(overrides)
        from ehrdl.scoring import check_run, score

        check_run(run)
        parser = train_parser(prog)
        parsed = parser.parse_args(["--config", str(run / "config.yaml"), *_source(run, overrides)])
        objects = parser.instantiate(parsed)
        score(run, objects.data, objects.task, objects.model, objects.trainer, Path(own.out) if own.out else None)


def _check_overrides(argv: list[str]) -> None:
    """Only the data, the task and the device may differ from the run."""
    allowed = ("data", "task", "trainer")
    for token in argv:
        if token.startswith("--") and token[2:].split("=")[0].split(".")[0] not in allowed:
            names = ", ".join(f"--{name}.…" for name in allowed)
            raise ConfigError(f"{token.split('=')[0]}: is fixed by the run; what may differ is {names}")


def _source(run: Path, overrides: list[str]) -> list[str]:
    """The overrides, with the reader of MIMIC-IV's layout where a synthetic run is given a hospital's folder."""
    source = _read_yaml(str(run / "config.yaml"))["data"]["source"]
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
        own = options.parse_args(argv)
        from ehrdl.engine import progress
        from ehrdl.report.remake import remake

        with progress() as bar:
            job = bar.add_task("bootstrap", total=1000)
            path = remake(Path(own.predictions), Path(own.out) if own.out else None, lambda n: bar.advance(job, n))
        say(f"report: {path}")


class _Options(argparse.ArgumentParser):
    """A small parser whose every error is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the reason and exit with status 2."""
        fail(f"{message} (see {self.prog} --help)")


_COMMANDS: dict[str, tuple[Callable[[list[str], str], None], str]] = {
    "train": (train, _TRAIN),
    "prepare": (prepare, _PREPARE),
    "predict": (predict, _PREDICT),
    "report": (report, _REPORT),
}


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


def check_files(argv: list[str], keys: list[str]) -> None:
    """Refuse what the parser would not name, or would take without a word, in the config files of a command line.

    Raises:
        ConfigError: a file is missing, is no YAML or no mapping, says a key twice, or gives a group of keys no keys.
    """
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        if option == "--config":
            file = value if equals else after
            _check_groups(file, _read_yaml(file), keys)


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        content = yaml.load(Path(file).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}: line {line}: is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: has no keys; a config looks like configs/quickstart.yaml")
    return content


class _Loader(yaml.SafeLoader):
    """Reads YAML, and refuses a key that stands twice: YAML itself would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {name} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _check_groups(file: str, content: Mapping[Any, Any], keys: list[str], prefix: str = "") -> None:
    if "class_path" in content:
        for name, value in content.items():
            kind = {"class_path": str, "init_args": dict}.get(name)
            if kind is None:
                raise ConfigError(f"{file}: {prefix}{name}: there is no such key. Allowed: class_path, init_args")
            if not isinstance(value, kind):
                raise ConfigError(f"{file}: {prefix}{name}: expected {kind.__name__}, got {value!r}")
    allowed = _below(prefix.removesuffix("."), keys)
    for name, value in content.items():
        if value == {} and allowed and name not in allowed:  # the parser would drop it without a word
            raise ConfigError(f"{file}: {_unknown(prefix.removesuffix('.'), str(name), allowed)}")
        inner = _below(f"{prefix}{name}", keys)
        if isinstance(value, dict):
            _check_groups(file, value, keys, f"{prefix}{name}.")
        elif inner and not isinstance(value, str):  # a string names a config file of this group
            raise ConfigError(f"{file}: {prefix}{name}: expected the keys {', '.join(inner)}, got {value!r}")


def explain(message: str, keys: Mapping[str, str]) -> str:
    r"""The parser's message as one line.

    Args:
        message: of jsonargparse; a key inside a class stands in the messages of all that are around it.
        keys: of the parser, with the names of their types.

    >>> explain('Parser key "optim.lr":\n  Expected a <class \'float\'>. Got value: fast', {})
    "optim.lr: expected float, got 'fast'"
    >>> explain("Group 'optim' does not accept option 'lrr'", {"optim.lr": "float", "optim.warmup": "float"})
    'optim.lrr: there is no such key; did you mean lr? Allowed: lr, warmup'
    """
    text = " ".join(message.split())
    if match := re.search(r"Parser key \"([\w.]+)\": Unable to load config ['\"]([^'\"]*)", text):
        group = ", ".join(_below(match[1], list(keys)))
        return f"{match[1]}: expected the keys {group}, or a config file, got {match[2]!r}"
    *_, reason = re.split(r'Parser key "[\w.]+":', text)
    where = re.findall(r'Parser key "([\w.]+)":', text)
    path = ".init_args.".join(where)
    if match := re.search(r"Option '([\w.]+)' is not accepted \[takes (.*?)\]", reason):
        return _unknown(f"{path}.init_args", match[1].split(".")[0], match[2].split(", "))
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return _outermost(f"{match[1]}.{match[2]}", list(keys))
    if match := re.search(r"(?:Option '|unrecognized arguments: --)([\w.]+)", text):
        return _outermost(match[1], list(keys))
    if match := re.search(r"the following arguments are required: ([\w., ]+)", reason):
        inside = f"{path}.init_args." if path else ""
        return f"{inside}{match[1]}: missing; give --config (for example configs/quickstart.yaml) or --KEY=VALUE"
    own = reason.split(". Got value: Namespace(")[0]  # without the values of the classes around it
    expected = re.search(r"Expected a (<.+>|[\w.]+\[.+)\. Got value: (.*)", own)
    if match := expected or re.search(r"Subtypes: \[(.+?)\] Errors.*Given value: (.*)", own):
        return f"{path}: expected {_plain(match[1])}, got {match[2]!r}"
    if re.search(r"class_path|subclass|mport path|has no attribute|is abstract", reason):
        return _no_class(path, reason, keys)
    return f"{path}: {reason.strip()}" if path else text


def _plain(wanted: str) -> str:
    """A type as a reader of YAML would say it.

    >>> _plain("list[str], <class 'NoneType'>"), _plain("typing.Literal['a', 'b']")
    ('list[str] or null', "one of 'a', 'b'")
    """
    wanted = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", wanted).replace("NoneType", "null")
    if choices := re.fullmatch(r"typing\.Literal\[(.+)\]", wanted):
        return f"one of {choices[1]}"
    return wanted.replace(", null", " or null")


def _below(parent: str, keys: list[str]) -> list[str]:
    prefix = f"{parent}." if parent else ""
    return sorted({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def _outermost(path: str, keys: list[str]) -> str:
    """The outermost part of a key that does not exist: `optimm` of `optimm.lr`."""
    parent = ""
    for name in path.split("."):
        allowed = _below(parent, keys)
        if name not in allowed:
            return _unknown(parent, name, allowed)
        parent = f"{parent}.{name}" if parent else name
    return f"{path}: there is no such key"


def _unknown(parent: str, name: str, allowed: list[str]) -> str:
    """A key that does not exist, with its nearest neighbour and what is allowed beside it."""
    near = get_close_matches(name, allowed, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{f'{parent}.' if parent else ''}{name}: there is no such key{hint} Allowed: {', '.join(allowed)}"


_CLASS_NAME = re.compile(
    r"class_path[ =]'([\w.]+)'|mport path ([\w.]+) does|path string: ([\w.]+)|'([\w.]+)' to be|but ([\w.]+) is abstract"
)


def _no_class(path: str, reason: str, keys: Mapping[str, str]) -> str:
    """A class path that does not exist or is of another kind, with the classes of the kind that ehrdl has."""
    kinds = re.findall(r"(\w+)\] expects", reason) or re.findall(r"subclass of (\w+)", reason) or [keys.get(path, "")]
    names = [name for match in _CLASS_NAME.findall(reason) for name in match if name] or ["null"]
    absent = re.search(r"No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+'|is abstract", reason)
    why = f" ({absent[0]})" if absent else ""
    there = f"; there are {', '.join(_classes(kinds[0]))}" if kinds[0] else ""
    return f"{path}.class_path: {names[0].rstrip('.')!r} is no {kinds[0] or 'class'}{why}{there}"


def _classes(kind: str) -> list[str]:
    """The classes of ehrdl that are of a kind, found by name in its source files, so that nothing is imported."""
    root = Path(__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        module = ".".join(("ehrdl", *file.relative_to(root).with_suffix("").parts))
        text = file.read_text(encoding="utf-8")
        found += [f"{module}.{name}" for name in re.findall(rf"^class (\w+)\([^)]*\b{kind}\)", text, re.MULTILINE)]
    return found


#: However a library says it: the operating system's words, DuckDB's, Arrow's, torch's.
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|errno 28\b|StreamWriter failed writing", re.I)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that ehrdl raises on purpose become one line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except EhrdlError as error:
        fail(" ".join(str(error).split()))
    except Exception as error:
        if _DISK_FULL.search(str(error)):
            reason = " ".join(str(error).split())[:200]
            fail(f"the disk is full ({reason}); free some space, or move data.prepare.cache and run.root")
        raise
    except KeyboardInterrupt:
        print("ehrdl: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _set_environment() -> None:
    """Settings that must stand before torch and tokenizers are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
