"""Finds the line in a file of a run that shows a fact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ehrdl.engine.files import read_json

#: A place in a file: names of keys and numbers of list entries, from the outside to the inside.
Keys = tuple[str | int, ...]

#: The files of a run that checklists read. The manifest is written last, so its text may come from its writer.
FILES = ("manifest.json", "config.yaml", "flow.json", "metrics.json", "spec.json", "calibration.json")
#: Further files that a run may have.
FURTHER = ("cohort.json", "leak_audit.json")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Evidence:
    """A line in a file of a run.

    Attributes:
        file: the name of the file in the run's folder.
        line: the number of the line, from 1.
        key: the place of the fact in the file, such as `choices.calibration`.
    """

    file: str
    line: int
    key: str

    @property
    def place(self) -> str:
        """The file and the line, such as `manifest.json:41`."""
        return f"{self.file}:{self.line}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `checklists.json`."""
        return {"file": self.file, "line": self.line, "key": self.key}


def json_lines(text: str) -> dict[Keys, int]:
    r"""Return the line of every key and every list entry of a JSON text.

    >>> json_lines('{\n  "seeds": [\n    0,\n    1\n  ]\n}')
    {('seeds',): 2, ('seeds', 0): 3, ('seeds', 1): 4}
    """
    lines: dict[Keys, int] = {}
    place: list[Any] = []  # one entry per open bracket: a key, None before the key is read, or a number in a list
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line, end, token = line + text.count("\n", end, match.start()), match.start(), match.group()
        if token in ("}", "]"):
            place.pop()
        elif token == ",":
            place[-1] = place[-1] + 1 if isinstance(place[-1], int) else None
        elif token != ":" and place and place[-1] is None and token != "{":
            place[-1] = json.loads(token)
            lines[tuple(place)] = line
        elif token != ":":
            if place and isinstance(place[-1], int):
                lines[tuple(place)] = line
            if token in ("{", "["):
                place.append(None if token == "{" else 0)
    return lines


def yaml_lines(text: str) -> dict[Keys, int]:
    r"""Return the line of every key and every list entry of a YAML text.

    >>> yaml_lines("seeds:\n- 0\noptim:\n  lr: 0.1\n")
    {('seeds',): 1, ('seeds', 0): 2, ('optim',): 3, ('optim', 'lr'): 4}
    """
    return dict(_in_node(yaml.compose(text, Loader=yaml.SafeLoader), ()))


def _in_node(node: Any, place: Keys) -> Iterator[tuple[Keys, int]]:
    """Yield the place and line of every key and entry below a node of a YAML text."""
    parts: list[tuple[str | int, Any, Any]] = []
    if isinstance(node, yaml.MappingNode):
        parts = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        parts = [(i, value, value) for i, value in enumerate(node.value)]
    for name, at, value in parts:
        yield (*place, name), at.start_mark.line + 1
        yield from _in_node(value, (*place, name))


@dataclass(frozen=True)
class RunFiles:
    """The texts of a run's files, by their names.

    A run that is being finished has no `manifest.json` yet. The text that will be written there takes its place.
    """

    texts: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path, names: tuple[str, ...] = (*FILES, *FURTHER)) -> RunFiles:
        """Read those of the named files that a folder has.

        Raises:
            ConfigError: a file is damaged.
        """
        there = [folder / name for name in names if (folder / name).is_file()]
        for path in there:
            if path.suffix == ".json":
                read_json(path)
        return cls({path.name: path.read_text(encoding="utf-8") for path in there})

    def with_text(self, name: str, text: str) -> RunFiles:
        """Return the files with another text of one file."""
        return RunFiles({**self.texts, name: text})

    def get(self, file: str, *keys: str | int) -> Any:
        """Return the value at a place in a file; None if the file or the place does not exist."""
        value = self._contents.get(file)
        for key in keys:
            if isinstance(value, Mapping):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
                value = value[key]
            else:
                return None
        return value

    def find(self, file: str, *keys: str | int) -> Evidence | None:
        """Return the line of a place in a file; None if the file or the place does not exist."""
        line = self._lines.get(file, {}).get(keys)
        return None if line is None else Evidence(file, line, ".".join(map(str, keys)))

    @cached_property
    def _contents(self) -> dict[str, Any]:
        return {
            name: yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
            for name, text in self.texts.items()
        }

    @cached_property
    def _lines(self) -> dict[str, dict[Keys, int]]:
        return {
            name: yaml_lines(text) if name.endswith(".yaml") else json_lines(text) for name, text in self.texts.items()
        }
