"""The parser of a configuration, whose every error is one line: the innermost key, the value and what is allowed."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from ehrdl.cli.allowed import refusal
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.moved import current
from ehrdl.options import trainer
from ehrdl.options.bounds import check_call, nearest, shown
from ehrdl.options.signatures import Argument, arguments, summary
from ehrdl.processes.ranks import hold_back

#: No config is deeper, or has more values; recursion ends at about 1000.
_DEEPEST, _MOST_PARTS = 64, 100_000
#: Actions of the parser that are no key of a configuration.
_NOT_KEYS = ("help", "config", "print_config", "print_shtab")
_HELP_WIDTH = 110
#: Keys whose value may be the name of a class.
_CLASSES = ("task", "model", "source", "note", "series", "static", "fusion", "head", "words")
#: What a class of a network is given by its caller, where it has no default of its own.
_GIVEN = ("spec", "width", "widths")


class Parser(ArgumentParser):
    """A parser whose every error is one line that names the innermost key, the value and what is allowed."""

    #: The command line of an example, and whether `--help` explains every key.
    example, explains_all = "", False

    def format_help(self, formatter: Any = None) -> str:
        """The keys by their groups, in a screen; all of them with their meaning where `explains_all`."""
        if self.explains_all or not self.example:
            return str(super().format_help(formatter))
        return short_help(self)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the reason and exit with status 2."""
        if self.exit_on_error:
            fail(explain(message, self.keys()))
        # The inner parser of one class: it alone knows what the class takes. The outer one adds where the class stands.
        takes = f" [takes {', '.join(self.keys())}]" if "is not accepted" in message else ""
        super().error(message + takes, ex)
        raise AssertionError("unreachable")

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The configuration of a command line.

        Raises:
            ConfigError: an option's value cannot be read at all; other errors are told by `error`.
        """
        argv = (args[0] if args else None) or []
        _import_short_names(argv)
        try:
            parsed = super().parse_args(*args, **kwargs)
            is_outer = any(action.dest == "config" for action in self._actions)  # and not that of a class
            return _with_own_defaults(parsed, argv) if is_outer else parsed
        except (RecursionError, ValueError, OverflowError) as error:
            reason = "is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
            raise ConfigError(f"a value cannot be read ({reason})") from None

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """The objects of a configuration, whose every argument is checked first, also that of a network made later.

        Raises:
            ConfigError: naming the key.
        """
        _check_classes(args[0])
        return super().instantiate(*args, **kwargs)

    def keys(self) -> dict[str, str]:
        """The keys of a configuration, each with the name of its type."""
        return {key: getattr(kind, "__name__", "") for key, kind in self._typed().items()}

    def annotations(self) -> dict[str, str]:
        """The keys of a configuration, each with its type in full."""
        return {key: str(kind) for key, kind in self._typed().items()}

    def _typed(self) -> dict[str, Any]:
        actions = [action for action in self._actions if action.dest.split(".")[-1] not in _NOT_KEYS]
        return {action.dest: getattr(action, "_typehint", "") for action in actions}


def short_help(parser: Parser) -> str:
    """What a command does, an example, and its keys by their groups."""
    groups: dict[str, list[str]] = {}
    for key in parser.annotations():
        group, _, name = key.rpartition(".")
        groups.setdefault(group, []).append(name)
    lines = []
    for group, names in sorted(groups.items(), key=lambda item: item[0]):
        own = [name for name in names if (f"{group}.{name}" if group else name) not in groups]
        if own:
            lines += textwrap.wrap(
                ", ".join(own), _HELP_WIDTH, initial_indent=f"  {group or '(top)':<20} ", subsequent_indent=" " * 23
            )
    return "\n".join(
        [
            f"usage: {parser.prog} --config FILE [--config FILE] [--KEY VALUE]",
            *("", str(parser.description), "", f"  {parser.example}"),
            *("", "Keys of the config and options of the command line (data.window has --data.window.series_hours):"),
            *("", *lines, ""),
            f"{parser.prog} --help all      explains each key",
            f"{parser.prog} --task.help NAME, --model.help NAME, --data.source.help NAME      what a class takes",
            *textwrap.wrap(str(parser.epilog or ""), _HELP_WIDTH),
            "",
        ]
    )


def list_classes(key: str, annotations: Mapping[str, str]) -> str:
    """The classes that a key takes, a line each.

    Args:
        key: such as `task`.
        annotations: the keys of a configuration, each with its type.

    Raises:
        ConfigError: the key takes no class.
    """
    kind = next((word for word in re.findall(r"\w+", annotations.get(key, "")) if _classes(word)), None)
    if kind is None:
        raise ConfigError(f"--{key}.help: {key} takes no class; --help lists the keys")
    names = _classes(kind)
    width = max(map(len, names))
    return "\n".join(
        [f"--{key} takes one of these; --{key}.help NAME says what it takes:", ""]
        + [f"  {name:<{width}}  {summary(name)}" for name in names]
    )


def fail(line: str) -> NoReturn:
    """One line on standard error, exit status 2."""
    print(f"ehrdl: {hold_back()}{line}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def check_files(argv: list[str], annotations: Mapping[str, str]) -> None:
    """Refuse what the parser would not name, would name late or would take without a word, on a command line.

    It names a wrong key before a class of a config is imported, which takes seconds.

    Args:
        argv: the command line.
        annotations: the keys of a configuration, each with its type.

    Raises:
        ConfigError: a config file is missing, is no YAML or no mapping, says a key twice, or gives a group of keys no
            keys; or there or among the options there is no such key.
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
    """Refuse `--trainer.NAME VALUE`, as far as the value can be read here."""
    if "." in name:
        trainer.check_keys([name.split(".")[0]])
        return
    try:
        trainer.check_arguments({name: yaml.load(value, _Loader)})
    except (yaml.YAMLError, ValueError):  # the parser tells it
        trainer.check_keys([name])


def _check_option(path: str, keys: list[str]) -> None:
    """Refuse an option that is no key, as far as keys go: what a class takes is not looked at."""
    parent = ""
    for name in path.split("."):
        allowed = _below(parent, keys)
        if allowed and name not in allowed:
            raise ConfigError(_unknown(parent, name, allowed))
        parent = f"{parent}.{name}" if parent else name


def carried_over(argv: list[str], parsed: Namespace) -> list[str]:
    """The values that a class takes over from the class that an earlier config or option names, a line for each class.

    The parser keeps every value whose name and type fit, also one that was a default of the class before.

    Args:
        argv: the command line, which `parsed` came of.
        parsed: its configuration.
    """
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
    lines = []
    for key, names in own.items():
        named: Any = parsed.get(key)
        if not named or not named.get("init_args"):
            continue
        takes = inspect.signature(resolve_name(named.class_path)).parameters
        kept = [
            f"{name} {value!r} (its own default: {takes[name].default!r})"
            for name, value in vars(named.init_args).items()
            if name not in names and name in takes and _differs(value, takes[name].default)
        ]
        if kept:
            taker = named.class_path.rpartition(".")[2]
            lines.append(f"note: {key}: {taker} takes over from the class before it: {', '.join(kept)}")
    return lines


def _with_own_defaults(parsed: Any, argv: list[str]) -> Any:
    """A configuration in which each class has its short name, and no values that nobody gave but its own defaults.

    Where an argument of a class has a class as its default, the parser keeps that class's values for one that is
    named in its place (jsonargparse 4.53).
    """
    given = {name.replace(".init_args", "") for layer in _layers(argv) for name in layer}

    def visit(part: Any, key: str) -> None:
        if not isinstance(part, Namespace):
            return
        if isinstance(part.get("class_path"), str) and isinstance(part.get("init_args"), Namespace):
            named = resolve_name(part.class_path)
            takes, short = inspect.signature(named).parameters, offered().get(named.__name__)
            if short and resolve_name(short) is named:  # so that one class has one name in the config of a run
                part.class_path = short
            for name, value in vars(part.init_args).items():
                if f"{key}.{name}" not in given and name in takes and _differs(value, takes[name].default):
                    part.init_args[name] = takes[name].default
        for name, inner in vars(part).items():
            visit(inner, key if name == "init_args" else f"{key}.{name}".removeprefix("."))

    visit(parsed, "")
    return parsed


def _import_short_names(argv: list[str] | None) -> None:
    """Import the classes that a command line or its config files name by one word: then the parser knows the word."""
    for given in _layers(argv or []):
        for name, value in given.items():
            if name.endswith("class_path") or name.rpartition(".")[2] in _CLASSES:
                path = offered().get(value) if isinstance(value, str) else None
                if path:
                    package, _, word = path.rpartition(".")
                    getattr(import_module(package), word)


def _layers(argv: list[str]) -> Iterator[dict[str, Any]]:
    """What each config file and option of a command line gives: values by their full keys."""
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        value = value if equals else after
        if option == "--config":
            yield _layer("", read_yaml(value))
        elif option.startswith("--"):
            yield _layer(option.removeprefix("--").removesuffix("+"), value)


def _layer(key: str, value: Any) -> dict[str, Any]:
    """What one config file or option gives; a value may be written out, or be the name of a file that holds it."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(yaml.YAMLError, ValueError):
            value = yaml.load(value, _Loader)
    elif isinstance(value, str) and ("." not in key or key.rpartition(".")[2] in _CLASSES) and _is_config(value):
        value = read_yaml(value)
    if isinstance(value, Mapping):
        return _flat(value, f"{key}." if key else "")
    return {key: value}


def _is_config(value: str) -> bool:
    return value.endswith((".yaml", ".yml", ".json")) and expanded(value).is_file()


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their keys, with dots.

    >>> _flat({"optim": {"lr": 0.1}, "seeds": [0]})
    {'optim.lr': 0.1, 'seeds': [0]}
    """
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _differs(value: Any, default: Any) -> bool:
    """Whether a plain value is another one than a plain default; what is no plain value is not compared."""
    plain = (int, float, str, bool, list)
    return isinstance(value, plain) and (default is None or isinstance(default, plain)) and value != default


def read_yaml(file: str) -> dict[str, Any]:
    """The content of a config file.

    Raises:
        ConfigError: it is missing, is no YAML or no mapping, or says a key twice.
    """
    try:
        content = yaml.load(expanded(file).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}: line {line}: is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {error}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError(f"{file}: holds a value that cannot be read ({' '.join(str(error).split())[:120]})") from None
    _refuse_loops(file, content)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: has no keys; a config looks like configs/quickstart.yaml")
    return content


class _Loader(yaml.SafeLoader):
    """Reads YAML as the parser does, but refuses a key that stands twice (YAML drops the first), and bottomless files.

    Numbers such as 1e-3 are numbers, and dates are text.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, f"it is nested over {_DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {name} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))


def _refuse_loops(file: str, content: Any) -> None:
    """Refuse anchors by which a part holds itself, or that multiply to more than any config holds."""
    n_parts, waiting = 0, [(content, 0)]
    while waiting:
        part, depth = waiting.pop()
        n_parts += 1
        if depth > _DEEPEST or n_parts > _MOST_PARTS:
            raise ConfigError(f"{file}: an anchor (&) of it holds itself, or is repeated too often; write it out")
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        waiting += [(one, depth + 1) for one in inner]


def _check_groups(file: str, content: Mapping[Any, Any], annotations: Mapping[str, str], prefix: str = "") -> None:
    keys = list(annotations)
    allowed = _below(prefix.removesuffix("."), keys)
    if "class_path" in content:
        takes = _check_class(file, content, annotations.get(prefix.removesuffix("."), ""), prefix)
        annotations = {f"{prefix}init_args.{name}": argument.annotation for name, argument in takes.items()}
    for name, value in content.items():
        if allowed and name not in allowed and "." not in str(name):
            raise ConfigError(_unknown(prefix.removesuffix("."), str(name), allowed))
        inner = _below(f"{prefix}{name}", keys)
        if isinstance(value, dict):
            _check_groups(file, value, annotations, f"{prefix}{name}.")
        elif inner and not isinstance(value, str):  # a string names a config file of this group
            raise ConfigError(f"{file}: {prefix}{name}: expected the keys {', '.join(inner)}, got {value!r}")


def _check_class(file: str, content: Mapping[Any, Any], annotation: str, prefix: str) -> Mapping[str, Argument]:
    """The arguments of a class, as far as its source tells.

    Args:
        file: that names the class.
        content: `class_path` and `init_args`.
        annotation: of the key that the class is given to.
        prefix: of that key.

    Raises:
        ConfigError: a part is wrong, or the class does not have an argument.
    """
    for name, value in content.items():
        kind = {"class_path": str, "init_args": dict}.get(name)
        if kind is None:
            raise ConfigError(f"{file}: {prefix}{name}: there is no such key. Allowed: class_path, init_args")
        if not isinstance(value, kind):
            raise ConfigError(f"{file}: {prefix}{name}: expected {kind.__name__}, got {value!r}")
    class_path = offered().get(content.get("class_path", "")) or current(content.get("class_path", ""))
    takes = arguments(class_path)
    for name in content.get("init_args", ()):
        if takes is not None and name not in takes:
            _check_kind(class_path, annotation, prefix)
            own = [key for key, argument in takes.items() if key not in _GIVEN or not argument.required]
            taker = content["class_path"].rpartition(".")[2]
            raise ConfigError(f"{_unknown(f'{prefix}init_args', str(name), own)} ({taker} takes no other)")
    return takes or {}


def _check_kind(class_path: str, annotation: str, prefix: str) -> None:
    """Refuse a class of ehrdl that is of another kind than its key wants: then its arguments are not the fault."""
    kind = next((word for word in re.findall(r"\w+", annotation) if _classes(word)), None)
    if kind and class_path.startswith("ehrdl.") and not _is_of(class_path.rpartition(".")[2], kind):
        raise ConfigError(_of_another_kind(prefix.removesuffix("."), class_path, kind))


def _check_classes(config: Any, prefix: str = "") -> None:
    """Refuse arguments that break the rules of the classes that a parsed configuration names."""
    if isinstance(config, list):
        config = {str(i): part for i, part in enumerate(config)}
    elif isinstance(config, Namespace):
        config = vars(config)
    else:
        return
    if isinstance(config.get("class_path"), str):
        given = vars(config["init_args"]) if config.get("init_args") else {}
        check_call(resolve_name(config["class_path"]).__init__, given, f"{prefix}init_args.")
    for name, part in config.items():
        _check_classes(part, f"{prefix}{name}.")


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
    if match := re.search(r"Importing '([\w.]+)' is not allowed", text):
        if group := ", ".join(_below(path, list(keys))) if path else "":
            return f"{path}: expected the keys {group}, or a config file, got {match[1]!r}"
        return f"{path or 'command line'}: {refusal(match[1])}"
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
        return f"{path}: expected {_plain(match[1])}, got {shown(match[2])}"
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
    hint = nearest(name, allowed) or "."
    return f"{f'{parent}.' if parent else ''}{name}: there is no such key{hint} Allowed: {', '.join(allowed)}"


_CLASS_NAME = re.compile(
    r"class_path[ =]'([\w.]+)'|mport path ([\w.]+) does|path string: ([\w.]+)|'([\w.]+)' to be|but ([\w.]+) is abstract"
    r"|Got value: (?!Namespace)([\w.]+)"
)


def _no_class(path: str, reason: str, keys: Mapping[str, str]) -> str:
    """A class path that does not exist or is of another kind, with the classes of the kind that ehrdl has."""
    kinds = re.findall(r"(\w+)\] expects", reason) or re.findall(r"subclass of (\w+)", reason) or [keys.get(path, "")]
    names = [name for match in _CLASS_NAME.findall(reason) for name in match if name] or ["null"]
    absent = re.search(r"No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+'|is abstract", reason)
    return _of_another_kind(path, names[0].rstrip("."), kinds[0], f" ({absent[0]})" if absent else "")


def _of_another_kind(path: str, name: str, kind: str, why: str = "") -> str:
    there = f"; there are {', '.join(_classes(kind))}" if kind else ""
    return f"{path}.class_path: {name!r} is no {kind or 'class'}{why}{there}"


def _classes(kind: str) -> list[str]:
    """The classes of ehrdl that are of a kind, by the names by which their packages offer them."""
    return sorted(name for name in offered().values() if _is_of(name.rpartition(".")[2], kind))


def _is_of(name: str, kind: str) -> bool:
    """Whether a class of ehrdl is a subclass of another one, by its source."""
    bases = _bases().get(name, frozenset())
    return kind in bases or any(_is_of(base, kind) for base in bases)


@functools.cache
def _bases() -> dict[str, frozenset[str]]:
    """What each class of ehrdl derives from, found by name in its source files, so that nothing is imported."""
    found = {}
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        for name, given in re.findall(r"^class (\w+)\(([^)]*)\)", file.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = frozenset(re.findall(r"\w+", given))
    return found


@functools.cache
def offered() -> dict[str, str]:
    """The classes that a configuration may name by one word, each with its path."""
    packages = [import_module(f"ehrdl.{package}") for package in ("models", "sources", "tasks")]
    return {name: f"{package.__name__}.{name}" for package in packages for name in package.__all__}
