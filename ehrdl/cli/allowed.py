"""Restricts the modules that a configuration may name, because the classes in it are imported and called.

A configuration is therefore code. A config from someone else, or from a run's folder, must not be able to call
`os.system`. A name is refused before its module is imported, unless the module is

- part of ehrdl, of a library that ehrdl is made of, or of an installed plug-in,
- beside the config file, or
- allowed on the command line.

jsonargparse applies this rule wherever it imports: in a file or on the command line, and at any depth. The rule also
applies to names that an allowed module only re-exports.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from ehrdl.errors import ConfigError

#: The group of entry points with which an installed package offers its modules to configurations.
PLUGINS = "ehrdl.plugins"
OPTION = "--allow-module"
HELP = (
    f"{OPTION} NAME (may be repeated): classes of this module may be named too. A configuration is code; without this "
    "it may name classes of ehrdl, its plug-ins, torch, Lightning, transformers, and modules beside the config file"
)
_OURS = ("ehrdl", "torch", "pytorch_lightning", "lightning", "lightning_fabric", "transformers")
#: A folder that holds one of these belongs to a run, and no code is imported from it.
_OF_A_RUN = ("checkpoints", "manifest.json", "spec.json", "flow.json")
_DOTTED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)+")


def take_option(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the modules that `--allow-module` names, and all other arguments.

    Raises:
        ConfigError: the value of an `--allow-module` is not the name of a module that can be allowed.

    >>> take_option(["--config", "a.yaml", "--allow-module", "mine", "--allow-module=your.models"])
    (['mine', 'your.models'], ['--config', 'a.yaml'])
    """
    names, rest = [], []
    tokens = iter(argv)
    for token in tokens:
        option, equals, value = token.partition("=")
        if option != OPTION:
            rest.append(token)
            continue
        name = value if equals else next(tokens, "")
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise ConfigError(f"{OPTION}: {name!r} is no module that can be allowed; give its name, such as my_models")
        names.append(name)
    return names, rest


def config_files(argv: Sequence[str]) -> list[str]:
    """Return the files that `--config` names on a command line.

    >>> config_files(["--config", "a.yaml", "--seeds=[1]", "--config=b.yaml"])
    ['a.yaml', 'b.yaml']
    """
    found = []
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        if option == "--config":
            found.append(os.path.expanduser(value if equals else after))
    return found


@contextmanager
def allowed_modules(
    names: Sequence[str], contents: Mapping[str, Any], argv: Sequence[str] = (), beside: bool = True
) -> Iterator[None]:
    """Let configurations name classes of more modules inside a `with` block.

    These are the modules that the command line allows, and modules in the same folder as a config file. The folders of
    config files are searched last, so a file `torch.py` there does not replace the installed torch. A run's folder is
    never searched.

    Args:
        names: the modules that the command line allows. The current folder is also searched for them, after all other
            folders.
        contents: the parsed content of each config file, by the file's path.
        argv: the command line. Its values may also name classes of modules beside a config file.
        beside: whether modules in the folders of the config files may be named.

    Raises:
        ConfigError: a class is in a module that is not allowed (the message names the class and the key), or an allowed
            module is broken.
    """
    before, ours, hidden = list(sys.path), list(names), dict[str, str]()
    wanted = {*_tops(list(contents.values())), *_tops([_value(token) for token in argv])} - set(_OURS)
    try:
        for name, hides in _beside_all(contents, wanted) if beside else ():
            if hides:
                hidden[name] = hides
            else:
                ours.append(name)
        if names:
            sys.path.append(os.getcwd())
        allowed = (*_OURS, *_plugins(), *ours)
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(allowed))
        _require_all(contents, argv, allowed, hidden)
        for name in ours:
            if name.split(".")[0] in wanted:
                _import(name)
        yield
    finally:
        sys.path[:] = before
        set_parsing_settings(import_path_denylist=[name for name in ours if name.split(".")[0] not in _OURS])


def refusal(name: str) -> str:
    """Return the message that explains why a class is not imported, and what to do."""
    module = name.rpartition(".")[0] or name
    return (
        f"{name!r} is not imported: a configuration may name classes of ehrdl, its plug-ins, torch, Lightning, "
        f"transformers, and modules beside the config file; if you trust this one: {OPTION} {module}"
    )


def _plugins() -> list[str]:
    """Return the top-level modules that installed packages offer."""
    return sorted({point.module.split(".")[0] for point in entry_points(group=PLUGINS)})


def _beside_all(files: Iterable[str], wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Make the wanted modules beside some files importable.

    Yield the name of each, with the file of an installed module of the same name, which is found first ('' = none).
    """
    for folder in sorted({Path(file).resolve().parent for file in files}):
        yield from _beside(folder, wanted).items()


def _beside(folder: Path, wanted: set[str]) -> dict[str, str]:
    """Make the wanted modules in a folder importable.

    Return the name of each, with the file of an installed module of the same name, which is found first ('' = none).
    """
    if any((folder / name).exists() for name in _OF_A_RUN):
        return {}
    here = [name for name in sorted(wanted) if _is_module(folder, name)]
    if here and str(folder) not in sys.path:
        sys.path.append(str(folder))
    found = {}
    for name in here:
        spec = find_spec(name)
        origin = (spec and spec.origin) or "a part of Python"
        found[name] = "" if Path(origin).resolve().is_relative_to(folder) else origin
    return found


def _is_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _import(name: str) -> None:
    """Import a module that a configuration names, and report an error in its code as one line."""
    try:
        import_module(name)
    except ImportError:  # the parser reports it with the key that names it
        return
    except Exception as error:  # external code can raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f"; {last.filename}, line {last.lineno}"
        raise ConfigError(f"{name}: cannot be imported ({type(error).__name__}: {error}{where})") from None


def _value(token: str) -> str:
    """Return the part of a command-line token that may name a class."""
    return token.partition("=")[2] if token.startswith("--") else token


def _structures(argv: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each command-line value that contains the name of a class, with its option."""
    for token, after in zip(argv, [*argv, ""][1:], strict=True):
        option, equals, value = token.partition("=")
        text = value if equals else after
        if option.startswith("--") and "class_path" in text:
            with suppress(yaml.YAMLError):  # the parser reports what is wrong with it
                yield option, yaml.safe_load(text)


def _tops(content: Any) -> Iterator[str]:
    """Yield the first part of each dotted name in a nested value."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from _tops(item)
    elif isinstance(content, str):
        yield from _DOTTED.findall(content)


def _require_all(
    contents: Mapping[str, Any], argv: Sequence[str], allowed: Sequence[str], hidden: Mapping[str, str]
) -> None:
    """Refuse every `class_path` of a module that is not allowed, in config files and on the command line."""
    for file, content in contents.items():
        _require(content, allowed, hidden, f"{file}: ")
    for option, content in _structures(argv):
        _require(content, allowed, hidden, option)


def _require(content: Any, allowed: Sequence[str], hidden: Mapping[str, str], key: str) -> None:
    """Refuse every `class_path` of a module that is not allowed, at any depth."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        here = f"{key}{name}" if key.endswith(" ") else f"{key}.{name}"
        if name == "class_path" and isinstance(value, str) and "." in value:
            if not any(value.startswith(f"{module}.") for module in allowed):
                hides = hidden.get(value.split(".")[0])
                why = f" (the one beside the config is hidden by {hides}; rename it)" if hides else ""
                raise ConfigError(f"{here}: {refusal(value)}{why}")
        else:
            _require(value, allowed, hidden, here)
