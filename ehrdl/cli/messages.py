"""The messages of the command line: each error of the parser as one line, and help that fits a screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping

from jsonargparse import ArgumentParser

from ehrdl.cli.allowed import refusal
from ehrdl.cli.classes import classes_of, is_of
from ehrdl.options.bounds import nearest, shown

_HELP_WIDTH = 110
#: The parser's phrases for a key that does not exist, and for a group of keys that got a single value.
UNKNOWN = ("is not accepted", "does not accept option", "unrecognized arguments", "Unable to load config")


def short_help(parser: ArgumentParser, keys: Iterable[str], example: str) -> str:
    """Return the short help of a command: its description, an example, and its configuration keys by group."""
    groups: dict[str, list[str]] = {}
    for key in keys:
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
            *("", str(parser.description), "", f"  {example}"),
            *("", "Keys of the config and options of the command line (data.window has --data.window.series_hours):"),
            *("", *lines, ""),
            f"{parser.prog} --help all      explains each key",
            f"{parser.prog} --task.help NAME, --model.help NAME, --data.source.help NAME      what a class takes",
            *textwrap.wrap(str(parser.epilog or ""), _HELP_WIDTH),
            "",
        ]
    )


def explain(message: str, keys: Mapping[str, str]) -> str:
    r"""Rewrite an error message of jsonargparse as one line.

    Args:
        message: the message. For a key inside a class, jsonargparse repeats in it the messages of all enclosing
            classes.
        keys: the configuration keys of the parser, each with the name of its type.

    >>> explain('Parser key "optim.lr":\n  Expected a <class \'float\'>. Got value: fast', {})
    "optim.lr: expected float, got 'fast'"
    >>> explain("Group 'optim' does not accept option 'lrr'", {"optim.lr": "float", "optim.warmup": "float"})
    'optim.lrr: there is no such key; did you mean lr? Allowed: lr, warmup'
    """
    text = " ".join(message.split())
    *_, reason = re.split(r'Parser key "[\w.]+":', text)
    own = reason.split(". Got value: Namespace(")[0]  # without the values of the classes around it
    path = _path(text)
    parts = {"all": text, "reason": reason, "own": own}
    for part, pattern, line in _LINES:
        if match := re.search(pattern, parts[part]):
            return line(match, path, keys)
    return f"{path}: {reason.strip()}" if path else text


def _path(message: str) -> str:
    '''Return the key that a message is about.

    Each class around the key adds `init_args`; a group of options does not.

    >>> _path("""Parser key "task": Problem with given class_path 'ehrdl.tasks.Readmission': Parser key "min_age":""")
    'task.init_args.min_age'
    '''
    path, *inner = re.split(r'Parser key "([\w.]+)":', message)[1:] or [""]
    for between, key in zip(inner[::2], inner[1::2], strict=False):
        options = re.search(r"class_path '(?:[\w.]+\.)?(\w+)'", between)
        path += f".{key}" if options and is_of(options[1], "Options") else f".init_args.{key}"
    return path


def _no_file(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that a group of keys got neither keys nor a config file."""
    parent, inside = _inside(match.string, keys)
    group = ", ".join(below(match[1], inside))
    return f"{parent}{match[1]}: expected the keys {group}, or a config file, got {match[2]!r}"


def _not_allowed(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that the module of a class is not allowed, or that a group of keys got the name of a class."""
    if group := ", ".join(below(path, list(keys))) if path else "":
        return f"{path}: expected the keys {group}, or a config file, got {match[1]!r}"
    return f"{path or 'command line'}: {refusal(match[1])}"


def _no_argument(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that a class does not take an argument."""
    return unknown_key(f"{path}{_inner(match.string)}", match[1].split(".")[0], match[2].split(", "))


def _inner(reason: str) -> str:
    """Return the part between a key and an argument of its class: nothing if the class is a group of options."""
    made = re.search(r"Problem with given class_path '(?:[\w.]+\.)?(\w+)'", reason)
    return "" if made and is_of(made[1], "Options") else ".init_args"


def _no_key(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that a key does not exist. The pattern may match the key and the group around it separately."""
    parent, inside = _inside(match.string, keys)
    return parent + outermost(".".join(match.groups()), inside)


def _inside(message: str, keys: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the prefix of a key inside a class, and the keys there. Outside any class: no prefix, and all keys."""
    taken = re.search(r"\[takes (.*?)\]", message)
    if not taken or ": Problem with given class_path" not in message:
        return "", list(keys)
    outer = re.findall(r'Parser key "([\w.]+)"', message.rpartition(": Problem with given class_path")[0])
    return ".init_args.".join(outer) + ".init_args.", taken[1].split(", ")


def _missing(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that keys have no value."""
    inside = f"{path}{_inner(match.string)}." if path else ""
    return f"{inside}{match[1].strip()}: missing; give --config (for example configs/quickstart.yaml) or --KEY=VALUE"


def _of_another_type(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that a value has a type that its key does not take."""
    return f"{path}: expected {_plain(match[1])}, got {shown(match[2])}"


def _plain(wanted: str) -> str:
    """Describe a type in the words of YAML.

    >>> _plain("list[str], <class 'NoneType'>"), _plain("typing.Literal['a', 'b']")
    ('list[str] or null', "one of 'a', 'b'")
    """
    wanted = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", wanted).replace("NoneType", "null")
    if choices := re.fullmatch(r"typing\.Literal\[(.+)\]", wanted):
        return f"one of {choices[1]}"
    return wanted.replace(", null", " or null")


def below(parent: str, keys: list[str]) -> list[str]:
    """Return the names that may follow a key, such as `lr` after `optim`.

    Args:
        parent: the key; empty = the names at the top.
        keys: all keys of the configuration, such as `optim.lr`.
    """
    prefix = f"{parent}." if parent else ""
    return sorted({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def outermost(path: str, keys: list[str]) -> str:
    """Return the error message for a key that does not exist. It names the first wrong part, `optimm` of `optimm.lr`.

    Args:
        path: the key that does not exist.
        keys: all keys of the configuration.
    """
    parent = ""
    for name in path.split("."):
        allowed = below(parent, keys)
        if name not in allowed:
            return unknown_key(parent, name, allowed)
        parent = f"{parent}.{name}" if parent else name
    return f"{path}: there is no such key"


def unknown_key(parent: str, name: str, allowed: list[str]) -> str:
    """Return the error message for a key that does not exist, with the most similar name and all allowed names.

    Args:
        parent: the part of the key that exists; empty = none.
        name: the name after it that does not exist.
        allowed: the names that may follow `parent`.
    """
    hint = nearest(name, allowed) or "."
    return f"{f'{parent}.' if parent else ''}{name}: there is no such key{hint} Allowed: {', '.join(allowed)}"


_CLASS_NAME = re.compile(
    r"class_path[ =]'([\w.]+)'|mport path ([\w.]+) does|path string: ([\w.]+)|'([\w.]+)' to be|but ([\w.]+) is abstract"
    r"|Got value: (?!Namespace)([\w.]+)"
)


def _no_class(match: re.Match[str], path: str, keys: Mapping[str, str]) -> str:
    """Explain that a class path does not exist or is of another kind, and list ehrdl's classes of the right kind."""
    reason = match.string
    kinds = re.findall(r"(\w+)\] expects", reason) or re.findall(r"subclass of (\w+)", reason) or [keys.get(path, "")]
    names = [name for match in _CLASS_NAME.findall(reason) for name in match if name] or ["null"]
    absent = re.search(r"No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+'|is abstract", reason)
    return of_another_kind(path, names[0].rstrip("."), kinds[0], f" ({absent[0]})" if absent else "")


def of_another_kind(path: str, name: str, kind: str, why: str = "") -> str:
    """Return the error message for a class that a key does not accept, with the classes that it accepts.

    Args:
        path: the key.
        name: the import path of the class.
        kind: the name of the base class of all accepted classes; empty = unknown.
        why: a further reason in brackets.
    """
    there = f"; there are {', '.join(classes_of(kind))}" if kind else ""
    return f"{path}.class_path: {name!r} is no {kind or 'class'}{why}{there}"


#: The part of the parser's message to search, the pattern to find there, and the function that explains it. The first
#: match counts. Parts: `all` of the message; the innermost key's `reason`; its `own` reason without enclosing values.
_LINES: tuple[tuple[str, str, Callable[[re.Match[str], str, Mapping[str, str]], str]], ...] = (
    ("all", r"Parser key \"([\w.]+)\": Unable to load config ['\"]([^'\"]*)", _no_file),
    ("all", r"Importing '([\w.]+)' is not allowed", _not_allowed),
    ("reason", r"Option '([\w.]+)' is not accepted \[takes (.*?)\]", _no_argument),
    ("all", r"Group '([\w.]+)' does not accept option '([\w.]+)'", _no_key),
    ("all", r"(?:Option '|unrecognized arguments: --)([\w.]+)", _no_key),
    ("reason", r"the following arguments are required: ([\w., ]+)", _missing),
    ("own", r"Expected a (<.+>|[\w.]+\[.+)\. Got value: (.*?)(?: - Expected a <.*|$)", _of_another_type),
    ("own", r"Subtypes: \[(.+?)\] Errors.*Given value: (.*)", _of_another_type),
    ("reason", r"class_path|subclass|mport path|has no attribute|is abstract", _no_class),
)
