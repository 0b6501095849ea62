"""Finds a config that ehrdl ships by the config's name, and writes a copy for the user to edit."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ehrdl.engine.files import write_text
from ehrdl.errors import ConfigError

#: In a checkout, the configs are beside the package. A wheel installs them into `share/ehrdl/configs` of the
#: environment, or of the folder given to `pip install --target`.
_PACKAGE, _INSTALLED = Path(__file__).parents[2], Path("share/ehrdl/configs")


def shipped() -> dict[str, Path]:
    """Return the file of each config that ehrdl ships, by the config's name, such as `quickstart`."""
    places = (_PACKAGE / "configs", _PACKAGE / _INSTALLED, Path(sysconfig.get_path("data")) / _INSTALLED)
    found = next((files for place in places if (files := sorted(place.rglob("*.yaml")))), [])
    return {file.stem: file for file in found}


def with_shipped(argv: Sequence[str]) -> list[str]:
    """Replace the names of shipped configs on a command line, as in `--config quickstart`, by the paths of their files.

    If a file with the same name exists, that file is used instead.

    Raises:
        ConfigError: the value of a `--config` is neither a file nor the name of a shipped config.
    """
    after_option = [False, *(token == "--config" for token in argv)]
    found = []
    for token, is_value in zip(argv, after_option, strict=False):
        option, equals, value = token.partition("=")
        if is_value:
            found.append(_located(token))
        elif option == "--config" and equals:
            found.append(f"--config={_located(value)}")
        else:
            found.append(token)
    return found


def _located(name: str) -> str:
    is_word = name and not Path(name).suffix and "/" not in name and "~" not in name
    if not is_word or Path(name).exists():
        return name
    configs = shipped()
    if name not in configs:
        raise ConfigError(f"--config {name}: is no file, and no shipped config; those are {', '.join(configs)}")
    return str(configs[name])


def subject_of(file: Path) -> str:
    """Return the text after `# What:` in the header of a config file: what the config trains."""
    lines = file.read_text(encoding="utf-8").splitlines()
    head = next((line for line in lines if line.startswith("# What:")), "")
    return head.removeprefix("# What:").strip()


def write_config(name: str, out: str | None) -> Path:
    """Write a copy of a shipped config for the user to edit, and return its path.

    Args:
        name: the config's name, such as `quickstart`.
        out: the file to write; None = `NAME.yaml` in the current folder.

    Raises:
        ConfigError: there is no such config, or the file exists already.
    """
    configs = shipped()
    if name not in configs:
        raise ConfigError(f"init {name}: is no shipped config; those are {', '.join(configs)}")
    file = Path(out or f"{name}.yaml")
    if file.exists():
        raise ConfigError(f"init: {file} is there already; name another file with --out")
    if not file.parent.is_dir():
        raise ConfigError(f"init: --out {file}: the folder {file.parent} does not exist; make it first")
    source = configs[name]
    below = source.relative_to(next(above for above in source.parents if above.name == "configs"))
    text = source.read_text(encoding="utf-8")
    command = f"python train.py --config configs/{below.as_posix()}"
    write_text(file, text.replace(command, f"ehrdl train --config {file}"))
    return file
