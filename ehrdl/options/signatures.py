"""Reads the arguments of a class from its source. Nothing is imported, so a wrong key is reported at once."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

#: The YAML types, by their names in annotations.
_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "None": type(None)}


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor.

    Attributes:
        annotation: the type annotation as written in the source; '' = none.
        kinds: the types of YAML values that the argument accepts; None = unknown.
        required: whether the argument has no default.
    """

    annotation: str
    kinds: frozenset[type] | None
    required: bool


@functools.cache
def arguments(path: str) -> dict[str, Argument] | None:
    """Return the arguments of a class's constructor, by name.

    Args:
        path: the import path of the class, `package.module.Class`.

    Returns:
        The arguments. None if they are unknown, because the source is missing, or because the class inherits its
        constructor or takes any argument.

    >>> list(arguments("ehrdl.models.Ensemble"))
    ['spec', 'networks', 'copies']
    """
    found = _definition(path)
    made = (
        [part for part in found.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"] if found else []
    )
    return _arguments(made[0].args) if made and not made[0].args.kwarg else None


def summary(path: str) -> str:
    """Return the first line of a class's docstring, without its final full stop.

    >>> summary("ehrdl.models.GRUD")
    'GRU-D over a regular grid of time bins, with one step per bin'
    """
    found = _definition(path)
    return ((ast.get_docstring(found) if found else None) or "").split("\n")[0].removesuffix(".")


def _definition(path: str) -> ast.ClassDef | None:
    """Return the definition of a class, found in its source by its path; None if it is missing."""
    module, _, name = path.rpartition(".")
    file = _file(module)
    for source in _sources(file, name) if file else ():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
    return None


def _sources(file: Path, name: str) -> Iterator[str]:
    """Yield the source texts that may define a class: its module's, and for a package also its submodules'."""
    yield file.read_text(encoding="utf-8")
    if file.name == "__init__.py":
        for inner in sorted(file.parent.rglob("*.py")):
            source = inner.read_text(encoding="utf-8")
            if re.search(rf"^class {name}\b", source, re.MULTILINE):
                yield source


def _file(module: str) -> Path | None:
    """Find the source file of a module. Only the top-level package is looked up, so nothing is imported."""
    top, *below = module.split(".")
    try:
        spec = find_spec(top) if top else None
    except ValueError:  # a module without a spec, such as __main__
        return None
    if spec is None:
        return None
    if not below:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for root in spec.submodule_search_locations or ():
        for file in (Path(root, *below).with_suffix(".py"), Path(root, *below, "__init__.py")):
            if file.is_file():
                return file
    return None


def _arguments(given: ast.arguments) -> dict[str, Argument]:
    positional = [*given.posonlyargs, *given.args]
    first_default = len(positional) - len(given.defaults)
    found = {
        argument.arg: _argument(argument, i < first_default)
        for i, argument in enumerate(positional)
        if i  # self
    }
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found[argument.arg] = _argument(argument, default is None)
    return found


def _argument(given: ast.arg, required: bool) -> Argument:
    written = ast.unparse(given.annotation) if given.annotation else ""
    return Argument(written, _kinds(given.annotation), required)


def _kinds(annotation: ast.expr | None) -> frozenset[type] | None:
    """Return the YAML types that an annotation allows; None if it does not tell.

    >>> sorted(kind.__name__ for kind in _kinds(ast.parse("Optional[Union[int, list[str]]]", mode="eval").body))
    ['NoneType', 'int', 'list']
    """
    match annotation:
        case ast.Name(name) if name in _PLAIN:
            return frozenset({_PLAIN[name]})
        case ast.Constant(None):
            return frozenset({type(None)})
        case ast.Name("timedelta"):  # not from YAML
            return frozenset()
        case ast.Subscript(ast.Name("Optional"), inner):
            return _all([_kinds(inner), frozenset({type(None)})])
        case ast.Subscript(ast.Name("Union"), ast.Tuple(parts)):
            return _all([_kinds(part) for part in parts])
        case ast.BinOp(left, ast.BitOr(), right):
            return _all([_kinds(left), _kinds(right)])
        case ast.Subscript(ast.Name("list" | "dict") as container, _):
            return _kinds(container)
        case _:
            return None


def _all(kinds: list[frozenset[type] | None]) -> frozenset[type] | None:
    known = [kind for kind in kinds if kind is not None]
    return frozenset().union(*known) if len(known) == len(kinds) else None
