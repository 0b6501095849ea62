"""The parser of a configuration. Each error is one line with the innermost key, the value and what is allowed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from ehrdl.cli.classes import classes_of, is_of, offered
from ehrdl.cli.messages import UNKNOWN, below, explain, of_another_kind, short_help, unknown_key
from ehrdl.cli.yaml_files import Loader, flat, read_yaml
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.options import trainer
from ehrdl.options.bounds import check_call, options_of
from ehrdl.options.signatures import Argument, arguments
from ehrdl.processes.ranks import hold_back

#: Actions of the parser that are not keys of a configuration.
_NOT_KEYS = ("help", "config", "print_config", "print_shtab")
#: Keys that may have the name of a class as their value.
_CLASSES = ("task", "model", "source", "note", "series", "static", "fusion", "head", "words")
#: Arguments of a network class that its caller provides, if they have no default.
_GIVEN = ("spec", "width", "widths")


class Parser(ArgumentParser):
    """A parser that reports each error in one line, with the innermost key, the value and what is allowed."""

    #: The command line of an example, and whether `--help` explains every key.
    example, explains_all = "", False

    def format_help(self, formatter: Any = None) -> str:
        """Return the help: the keys by group on one screen or, with `explains_all`, every key with its meaning."""
        if self.explains_all or not self.example:
            return str(super().format_help(formatter))
        return short_help(self, self.annotations(), self.example)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason of an error in one line, and exit with status 2."""
        if self.exit_on_error:
            fail(explain(message, self.keys()))
        # This is the inner parser of one class. Only it knows what the class takes. The outer parser adds the key.
        unknown = any(said in message for said in UNKNOWN)
        takes = f" [takes {', '.join(self.keys())}]" if unknown and "[takes" not in message else ""
        super().error(message + takes, ex)
        raise AssertionError("unreachable")

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Return the configuration of a command line.

        Raises:
            ConfigError: an option's value cannot be read at all. Other errors are reported by `error`.
        """
        argv = (args[0] if args else None) or []
        _import_short_names(argv)
        try:
            parsed = super().parse_args(*args, **kwargs)
            is_outer = any(action.dest == "config" for action in self._actions)  # false for the inner parser of a class
            return _with_own_defaults(parsed, argv) if is_outer else parsed
        except (RecursionError, ValueError, OverflowError) as error:
            reason = "is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
            raise ConfigError(f"a value cannot be read ({reason})") from None

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Check every argument of a parsed configuration, then return the objects that the configuration describes.

        Networks are made later, but their arguments are checked here too.

        Raises:
            ConfigError: an argument is invalid; the message names the key.
        """
        _check_classes(args[0])
        return super().instantiate(*args, **kwargs)

    def keys(self) -> dict[str, str]:
        """Return all keys that a configuration can have, each with the name of its type."""
        return {key: getattr(kind, "__name__", "") for key, kind in self._typed().items()}

    def annotations(self) -> dict[str, str]:
        """Return all keys that a configuration can have, each with its full type annotation as text."""
        return {key: str(kind) for key, kind in self._typed().items()}

    def _typed(self) -> dict[str, Any]:
        actions = [action for action in self._actions if action.dest.split(".")[-1] not in _NOT_KEYS]
        return {action.dest: getattr(action, "_typehint", "") for action in actions}


def fail(line: str) -> NoReturn:
    """Print an error message of one line to standard error, and exit with status 2."""
    print(f"ehrdl: {hold_back()}{line}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def check_files(argv: list[str], annotations: Mapping[str, str]) -> None:
    """Check a command line and its config files for faults that the parser would accept, report late or describe badly.

    A wrong key is reported before the classes of a config are imported, because the import takes seconds.

    Args:
        argv: the command line.
        annotations: the keys of a configuration, each with its type.

    Raises:
        ConfigError: a config file is missing, is not YAML, has no keys or has a key twice. The other causes are a group
            of keys with a single value, and a key that does not exist, in a file or as an option.
    """
    keys = list(annotations)
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        value = value if equals else after
        if option == "--config":
            content = read_yaml(value)
            _check_groups(value, content, annotations)
            trainer.check_arguments(content.get("trainer", {}))
        elif option.startswith("--trainer."):
            _check_trainer_option(option.removeprefix("--trainer."), value)
        elif option.startswith("--") and option.removeprefix("--") not in _NOT_KEYS:
            _check_option(option.removeprefix("--").removesuffix("+").replace("-", "_"), keys)


def _check_trainer_option(name: str, value: str) -> None:
    """Check `--trainer.NAME VALUE`. If the value cannot be read here, check only the name."""
    if "." in name:
        trainer.check_keys([name.split(".")[0]])
        return
    try:
        trainer.check_arguments({name: yaml.load(value, Loader)})
    except (yaml.YAMLError, ValueError):  # the parser reports it
        trainer.check_keys([name])


def _check_option(path: str, keys: list[str]) -> None:
    """Refuse an option that is not a key of the configuration. Arguments of classes are not checked."""
    parent = ""
    for name in path.split("."):
        allowed = below(parent, keys)
        if allowed and name not in allowed:
            raise ConfigError(unknown_key(parent, name, allowed))
        parent = f"{parent}.{name}" if parent else name


def check_help(argv: list[str]) -> None:
    """Check that NAME in `--KEY.help NAME` can be a class.

    Raises:
        ConfigError: ehrdl offers no class of this name, and the name is not the path of another class.
    """
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        name = value if equals else after
        if option.startswith("--") and option.endswith(".help") and "." not in name and name not in offered():
            raise ConfigError(f"{option}: {name} is no class of ehrdl; {option} lists them")


def carried_over(argv: list[str], parsed: Namespace) -> list[str]:
    """Describe the argument values that classes keep from the classes that they replace, one line per class.

    A later config or option can name another class for the same key. The parser then keeps each value of the earlier
    class that the new class also accepts, even a default.

    Args:
        argv: the command line.
        parsed: the configuration that the command line gave.
    """
    lines = []
    for key, names in _replaced(argv).items():
        named: Any = parsed.get(key)
        if named and (kept := _kept(named, names)):
            taker = named.class_path.rpartition(".")[2]
            lines.append(f"note: {key}: {taker} takes over from the class before it: {', '.join(kept)}")
    return lines


def _replaced(argv: list[str]) -> dict[str, set[str]]:
    """Return the keys with a class that replaces an earlier one, each with the arguments given for the new class."""
    classes: dict[str, str] = {}
    own: dict[str, set[str]] = {}
    for given in _layers(argv):
        for name, value in given.items():
            key, _, last = name.rpartition(".")
            if last == "class_path":
                if classes.get(key, value) != value:
                    own[key] = set()
                classes[key] = value
        for key, names in own.items():
            names |= {name.removeprefix(f"{key}.init_args.") for name in given}
    return own


def _kept(named: Namespace, given: set[str]) -> list[str]:
    """Return a class's arguments that were not given with it and differ from its defaults, with their values."""
    if not named.get("init_args"):
        return []
    takes = inspect.signature(resolve_name(named.class_path)).parameters
    return [
        f"{name} {value!r} (its own default: {takes[name].default!r})"
        for name, value in vars(named.init_args).items()
        if name not in given and name in takes and _differs(value, takes[name].default)
    ]


def _with_own_defaults(parsed: Any, argv: list[str]) -> Any:
    """Return a configuration in which each class has its short name, its given values and its own defaults.

    Without this, jsonargparse 4.53 keeps the values of a default class when another class is named in its place.
    """
    given = {name.replace(".init_args", "") for layer in _layers(argv) for name in layer}

    def visit(part: Any, key: str) -> None:
        if not isinstance(part, Namespace):
            return
        if isinstance(part.get("class_path"), str) and isinstance(part.get("init_args"), Namespace):
            named = resolve_name(part.class_path)
            takes, short = inspect.signature(named).parameters, offered().get(named.__name__)
            if short and resolve_name(short) is named:  # one class then has one name in the config of a run
                part.class_path = short
            for name, value in vars(part.init_args).items():
                if f"{key}.{name}" not in given and name in takes and _differs(value, takes[name].default):
                    part.init_args[name] = takes[name].default
        for name, inner in vars(part).items():
            visit(inner, key if name == "init_args" else f"{key}.{name}".removeprefix("."))

    visit(parsed, "")
    return parsed


def _import_short_names(argv: list[str] | None) -> None:
    """Import the classes that a command line or its configs name by one word, so that the parser knows them."""
    for given in _layers(argv or []):
        for name, value in given.items():
            if name.endswith("class_path") or name.removesuffix(".help").rpartition(".")[2] in _CLASSES:
                path = offered().get(value) if isinstance(value, str) else None
                if path:
                    package, _, word = path.rpartition(".")
                    getattr(import_module(package), word)


def _layers(argv: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the values of each config file and each option of a command line, by their full keys."""
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        value = value if equals else after
        if option == "--config":
            yield _layer("", read_yaml(value))
        elif option.startswith("--"):
            yield _layer(option.removeprefix("--").removesuffix("+"), value)


def _layer(key: str, value: Any) -> dict[str, Any]:
    """Return the values of one config file or option.

    A value may be written out, or be the name of a file that holds it.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(yaml.YAMLError, ValueError):
            value = yaml.load(value, Loader)
    elif isinstance(value, str) and ("." not in key or key.rpartition(".")[2] in _CLASSES) and _is_config(value):
        value = read_yaml(value)
    if isinstance(value, Mapping):
        return flat(value, f"{key}." if key else "")
    return {key: value}


def _is_config(value: str) -> bool:
    return value.endswith((".yaml", ".yml", ".json")) and expanded(value).is_file()


def _differs(value: Any, default: Any) -> bool:
    """Return whether a plain value differs from a plain default. Other values are not compared."""
    plain = (int, float, str, bool, list)
    return isinstance(value, plain) and (default is None or isinstance(default, plain)) and value != default


def _check_groups(file: str, content: Mapping[Any, Any], annotations: Mapping[str, str], prefix: str = "") -> None:
    keys = list(annotations)
    allowed = below(prefix.removesuffix("."), keys)
    if "class_path" in content:
        takes = _check_class(file, content, annotations.get(prefix.removesuffix("."), ""), prefix)
        annotations = {f"{prefix}init_args.{name}": argument.annotation for name, argument in takes.items()}
    for name, value in content.items():
        if allowed and name not in allowed and "." not in str(name):
            raise ConfigError(unknown_key(prefix.removesuffix("."), str(name), allowed))
        inner = below(f"{prefix}{name}", keys)
        if isinstance(value, dict):
            _check_groups(file, value, annotations, f"{prefix}{name}.")
        elif inner and not isinstance(value, str):  # a string names a config file of this group
            raise ConfigError(f"{file}: {prefix}{name}: expected the keys {', '.join(inner)}, got {value!r}")


def _check_class(file: str, content: Mapping[Any, Any], annotation: str, prefix: str) -> Mapping[str, Argument]:
    """Check the class that a config file names, and return its arguments as far as its source shows them.

    Args:
        file: the file that names the class.
        content: the class's `class_path` and `init_args`.
        annotation: the type of the key that the class is given to.
        prefix: the prefix of that key.

    Raises:
        ConfigError: a key or a value is wrong, or the class does not take an argument.
    """
    for name, value in content.items():
        kind = {"class_path": str, "init_args": dict}.get(name)
        if kind is None:
            raise ConfigError(f"{file}: {prefix}{name}: there is no such key. Allowed: class_path, init_args")
        if not isinstance(value, kind):
            raise ConfigError(f"{file}: {prefix}{name}: expected {kind.__name__}, got {value!r}")
    class_path = offered().get(content.get("class_path", ""), content.get("class_path", ""))
    takes = arguments(class_path)
    for name in content.get("init_args", ()):
        if takes is not None and name not in takes:
            _check_kind(class_path, annotation, prefix)
            own = [key for key, argument in takes.items() if key not in _GIVEN or not argument.required]
            taker = content["class_path"].rpartition(".")[2]
            raise ConfigError(f"{unknown_key(f'{prefix}init_args', str(name), own)} ({taker} takes no other)")
    return takes or {}


def _check_kind(class_path: str, annotation: str, prefix: str) -> None:
    """Refuse a class of ehrdl that is of the wrong kind for its key, because its arguments are then not the fault."""
    kind = next((word for word in re.findall(r"\w+", annotation) if classes_of(word)), None)
    if kind and class_path.startswith("ehrdl.") and not is_of(class_path.rpartition(".")[2], kind):
        raise ConfigError(of_another_kind(prefix.removesuffix("."), class_path, kind))


def _check_classes(config: Any, prefix: str = "") -> None:
    """Refuse arguments that break the rules of the classes in a parsed configuration."""
    if isinstance(config, list):
        config = {str(i): part for i, part in enumerate(config)}
    elif isinstance(config, Namespace):
        config = vars(config)
    else:
        return
    if isinstance(config.get("class_path"), str):
        given = vars(config["init_args"]) if config.get("init_args") else {}
        made = resolve_name(config["class_path"]).__init__
        check_call(made, given, f"{prefix}init_args.")
        for name, options in options_of(made):
            if isinstance(given.get(name), Namespace):
                options(**vars(given[name]))
    for name, part in config.items():
        _check_classes(part, f"{prefix}{name}.")
