"""Records the model files of a finished run, and checks them before use.

A model file that is truncated, swapped or left out when a run's folder is copied would change predictions silently. A
run whose model files have changed is therefore not used. Reports and predictions are not checked. They may be made
again, or left out when a run's folder is passed on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ehrdl.engine.files import digest, read_json, whole
from ehrdl.engine.messages import say
from ehrdl.errors import ConfigError, EhrdlError

#: The recorded files of a run folder. Files with a name that begins with a dot are not complete yet.
_KEPT = (
    "config.yaml",
    "spec.json",
    "calibration.json",
    "encoders.json",
    "leak_audit.json",
    "tokenizer/**/*",
    "models/*",
    "checkpoints/*",
)
#: The number of files named in one line; the rest are counted.
_NAMED = 4
_REMEDY = "copy the run's folder again from where it was made, or fit it anew with --run.overwrite true"


def record(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the size and hash of each model file of a run, by the file's path in the run's folder."""
    return {name: _facts(folder / name) for name in _there(folder)}


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with a hash of its content added, which `read_manifest` checks."""
    return manifest | {"digest": digest(manifest)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished run.

    Raises:
        ConfigError: the manifest is damaged, or was changed after the run had written it.
    """
    path = folder / "manifest.json"
    manifest: dict[str, Any] = read_json(path, dict)
    if "digest" in manifest and sealed({k: v for k, v in manifest.items() if k != "digest"}) != manifest:
        raise ConfigError(f"{path}: was changed after the run had written it; {_REMEDY}")
    seeds = manifest.get("seeds")
    if not (isinstance(seeds, list) and seeds and all(isinstance(seed, int) for seed in seeds)):
        raise ConfigError(f"{path}: has no seeds ({seeds!r}), so it is no manifest of a run; {_REMEDY}")
    return manifest


def check_config(folder: Path, manifest: dict[str, Any], name: str = "config.yaml") -> None:
    """Check that the file `config.yaml` of a run, or another recorded file, is as the run wrote it.

    The hash of the file is checked, since a truncated file may still be valid YAML.

    Raises:
        ConfigError: the file has changed; the message names it.
    """
    facts = (manifest.get("files") or {}).get(name)
    if facts and (why := _differs(folder / name, facts)):
        raise ConfigError(f"{folder / name}: {why}; {_REMEDY}")


def check_files(folder: Path, manifest: dict[str, Any]) -> frozenset[str]:
    """Check that the model files of a run are as the run wrote them.

    A model file that the run did not write is left out, with a printed line. Older versions recorded no files. Their
    runs are used unchecked, with a printed line.

    Args:
        folder: the run's folder.
        manifest: the run's manifest.

    Returns:
        The paths of the model files that may be used, relative to the run's folder.

    Raises:
        ConfigError: files are missing, or are not as the run wrote them; the message names them.
    """
    there = _there(folder)
    if "files" not in manifest:
        say(f"note: {folder}: its version recorded no list of its files, so nothing shows whether all are there")
        return frozenset(there)
    recorded: dict[str, dict[str, Any]] = manifest["files"]
    wrong = [f"{name} {why}" for name, facts in recorded.items() if (why := _differs(folder / name, facts))]
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ConfigError(f"{folder}: {', '.join(wrong[:_NAMED])}{more}; {_REMEDY}")
    for name in there:
        if name not in recorded:
            say(f"note: {folder / name}: is not of this run, and is left out")
    return frozenset(recorded)


def copy_folder(source: Path, target: Path) -> None:
    """Copy all files of a folder, each whole or not at all.

    The copies get the permissions of new files, not those of the originals, because a folder such as a cache may be
    readable by more users.
    """
    for path in sorted(source.rglob("*")):
        if path.is_file():
            file = target / path.relative_to(source)
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole(file) as part:
                shutil.copyfile(path, part)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Within the block, turn any error from reading a damaged file into a one-line `ConfigError`.

    Args:
        path: the file that is read in the block.
        what: what the file should be, for the message, such as `checkpoint`.

    Raises:
        ConfigError: the file cannot be read; the message names the file and the reason.
    """
    try:
        yield
    except EhrdlError:
        raise
    except Exception as error:  # a damaged file can raise any error
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{path}: is no {what} of this version of ehrdl ({type(error).__name__}: {reason}); {_REMEDY}"
        ) from None


def _there(folder: Path) -> list[str]:
    found = {path for pattern in _KEPT for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder).as_posix() for path in found if not path.name.startswith("."))


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _differs(path: Path, recorded: dict[str, Any]) -> str | None:
    """Describe a file's difference from its record; None if there is none."""
    if not path.is_file():
        return "is missing"
    try:
        found = _facts(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found["bytes"] != recorded["bytes"]:
        return f"has {found['bytes']:,} bytes, not the {recorded['bytes']:,} that the run wrote"
    return None if found == recorded else "is not as the run wrote it"
