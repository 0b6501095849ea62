"""Reads YAML for the command line, refuses duplicate keys and deep nesting, and flattens keys to their full names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError

#: The largest depth and number of values of a config. Python's recursion ends at a depth of about 1000.
_DEEPEST, _MOST_PARTS = 64, 100_000


def flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings in one dict, by their dotted keys.

    >>> flat({"optim": {"lr": 0.1}, "seeds": [0]})
    {'optim.lr': 0.1, 'seeds': [0]}
    """
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def read_yaml(file: str) -> dict[str, Any]:
    """Read the content of a config file.

    Raises:
        ConfigError: the file is missing, is not YAML, has no keys, or has a key twice.
    """
    try:
        content = yaml.load(expanded(file).read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}: line {line}: is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {error}") from None
    except ValueError as error:  # a number with more digits than Python reads
        raise ConfigError(f"{file}: holds a value that cannot be read ({' '.join(str(error).split())[:120]})") from None
    _refuse_loops(file, content)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: has no keys; a config looks like configs/quickstart.yaml")
    return content


class Loader(yaml.SafeLoader):
    """A YAML loader that reads values as jsonargparse does, but refuses duplicate keys and deep nesting.

    PyYAML would silently drop the first of two equal keys. Values such as 1e-3 are read as numbers, and dates as text.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one node of the file. Raise an error if it is nested too deep."""
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, f"it is nested over {_DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping. Raise an error if a key occurs twice."""
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {name} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)
Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))


def _refuse_loops(file: str, content: Any) -> None:
    """Refuse anchors that make a part contain itself, or that expand to more values than any config has."""
    n_parts, waiting = 0, [(content, 0)]
    while waiting:
        part, depth = waiting.pop()
        n_parts += 1
        if depth > _DEEPEST or n_parts > _MOST_PARTS:
            raise ConfigError(f"{file}: an anchor (&) of it holds itself, or is repeated too often; write it out")
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        waiting += [(one, depth + 1) for one in inner]
