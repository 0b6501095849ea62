"""The folder of a run. A finished run is left unchanged, and a folder with a run of another config is refused."""

from __future__ import annotations

import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ehrdl.engine.files import sweep, write_json, write_text
from ehrdl.engine.folders import check_writable
from ehrdl.engine.messages import say, staged
from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError
from ehrdl.options.training import RunOptions
from ehrdl.processes.signals import job, tell
from ehrdl.recorded import not_recorded, unknowable
from ehrdl.runs.files import check_files, read_manifest, record, sealed

#: Keys that change no number, so a run may resume or be repeated with other values.
FREE = (("run",), ("data", "prepare"), ("logger",), ("tune",), ("report",), ("audit",))
#: Every folder of a run holds one of these files, even if the run was stopped.
_OF_A_RUN = ("config.yaml", "manifest.json", "checkpoints")
_LOCKS, _JOB = ".locks", ".job"
#: Seconds for which an ending process may still lock a folder.
_ENDING_S = 3.0
_PACKAGES = ("torch", "pytorch-lightning", "transformers", "tokenizers", "scikit-learn", "duckdb", "numpy", "pandas")


class RunFolder:
    """The folder of one run, and the wall time of the run's steps.

    Args:
        options: the options of the run, which name its folder.
        config: the resolved configuration.
        free: the config keys, as paths, that may have other values when the run resumes in its folder.
    """

    def __init__(self, options: RunOptions, config: dict[str, Any], free: tuple[tuple[str, ...], ...] = FREE) -> None:
        self.folder = expanded(options.root) / options.name
        self.options, self.config, self.free = options, config, free
        self.wall_s: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether the folder holds a finished run, which is left unchanged."""
        return (self.folder / "manifest.json").is_file() and not self.replaces

    @property
    def replaces(self) -> bool:
        """Whether the run in the folder is to be replaced (`run.overwrite`).

        It is False for a SLURM job that was requeued, since the folder then has this job's own work.
        """
        file = self.folder / _JOB
        requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
        own = requeued and file.is_file() and file.read_text(encoding="utf-8") == job()
        return self.options.overwrite and not own

    def check(self) -> None:
        """Check that the run can use its folder.

        Raises:
            ConfigError: the folder is not writable, or it has files but no run, a damaged run, or a run of another
                config. The message names the first key, or the files, that differ.
        """
        if not self.finished:
            check_writable(self.folder, "run.root")
        if self.replaces:
            self._check_removable()
            return
        if not self.folder.exists():
            return
        path = self.folder / "config.yaml"
        if not path.is_file():
            if any(self.folder.iterdir()):
                raise ConfigError(f"{self.folder}: exists and is no run of ehrdl; choose another run.name")
            return
        if self.finished:  # checked first, since a truncated config is not another config
            check_files(self.folder, read_manifest(self.folder))
        self._check_config(path)

    def _check_removable(self) -> None:
        """Refuse to begin if the old run's folder could not be removed after the preparation."""
        if not self.folder.exists():
            return
        check_writable(self.folder.parent, "run.root")
        if any(self.folder.iterdir()) and not any((self.folder / name).exists() for name in _OF_A_RUN):
            raise ConfigError(f"run.overwrite: {self.folder} is no run of ehrdl; choose another run.name")
        for place in (self.folder, *self.folder.rglob("*")):
            if place.is_dir() and not place.is_symlink() and not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"run.overwrite: {place} cannot be removed (no permission); choose another run.name")

    def _check_config(self, path: Path) -> None:
        try:
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ConfigError(
                f"{path}: is damaged, no YAML ({reason}); choose another run.name, or --run.overwrite true"
            ) from None
        if not isinstance(there, dict):
            raise ConfigError(f"{path}: holds no config; choose another run.name, or --run.overwrite true")
        different = _first_difference(numbers_only(there, self.free), numbers_only(self.config, self.free))
        if different:
            raise ConfigError(
                f"{self.folder}: was made with another config ({different}); choose another run.name, "
                f"or --run.overwrite true"
            )
        if unknowable(self.config):
            what = " and ".join(f"{key} ({what})" for key, what in not_recorded(self.config))
            raise ConfigError(
                f"{self.folder}: is there already, and whether it was made with this {what} cannot be told; choose "
                "another run.name, or --run.overwrite true"
            )

    def open(self) -> None:
        """Make the run's folder, after removing a run that is to be replaced, and write the resolved config into it."""
        if self.replaces and self.folder.exists():
            self._remove()
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        if self.options.overwrite:
            tell("the same command without --run.overwrite resumes")
            if job():
                write_text(self.folder / _JOB, job())
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        write_text(self.folder / "config.yaml", text)

    def _remove(self) -> None:
        """Remove the old run in one visible step, so that a failure leaves no partial run under its name."""
        aside = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}.replaced")
        os.replace(self.folder, aside)
        try:
            shutil.rmtree(aside)
        except OSError as error:
            say(f"note: the run that is replaced is still at {aside}, and cannot be removed ({error.strerror})")

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Within the block, measure the wall time of a step of the run [s], and add it to `wall_s`."""
        start = time.perf_counter()
        with staged(step):
            yield
        self.wall_s[step] = round(self.wall_s.get(step, 0.0) + time.perf_counter() - start, 2)

    def manifest(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the manifest, which describes the run, its software, its machine and its files.

        The files of the models must exist already. `manifest.json` begins with exactly this content, and ends with what
        `finish` adds.

        Args:
            facts: the facts about data, task and models, which are added to the manifest.
        """
        described = {
            "ehrdl": installed_version("ehrdl"),
            "git": git_hash(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "seeds": self.config["seeds"],
            "wall_s": self.wall_s,
            "versions": {"python": platform.python_version()} | {name: installed_version(name) for name in _PACKAGES},
            "hardware": _hardware(),
            **facts,
        }
        return described | {"files": record(self.folder)}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Add a hash of its content to the manifest, and write it. A run with a manifest counts as finished."""
        write_json(self.folder / "manifest.json", sealed(manifest))


@contextmanager
def holding(folder: Path, key: str, why: str) -> Iterator[None]:
    """Lock a folder within the block, so that no other process of ehrdl writes into it. It need not exist yet.

    The lock is a file beside the folder, so that the folder can be replaced while it is locked. The operating system
    frees the lock when its process dies for any reason. A shared file system must support `flock` for this.

    Args:
        folder: the folder to lock.
        key: the config key that names the folder, such as `run.root`, for the message.
        why: a phrase for the message that describes what the process with the lock is doing.

    Raises:
        ConfigError: another process has locked the folder, or its place cannot be written to.
    """
    check_writable(folder, key)
    locks = folder.parent / _LOCKS
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    lock = FileLock(locks / f"{folder.name}.lock")
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_ENDING_S)
    except Timeout:
        raise ConfigError(f"{folder}: {why}; wait for its end, or name another") from None
    except OSError as error:
        raise ConfigError(f"{key}: {locks} cannot be written to ({error.strerror or error})") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # a waiting process notices this, and makes a new one
        lock.release()
        with suppress(OSError):  # the folder is not empty
            for empty in (locks, *made):
                empty.rmdir()


def numbers_only(config: dict[str, Any], free: tuple[tuple[str, ...], ...] = FREE) -> dict[str, Any]:
    """Return the part of a config that decides the results of a run: all keys but those of `free`.

    A top-level key with an empty mapping is left out too.
    """
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for path in free:
        inner = kept
        for key in path[:-1]:
            inner = inner.get(key) or {}
        inner.pop(path[-1], None)
    return {key: value for key, value in kept.items() if value != {}}


def _first_difference(there: Any, here: Any, key: str = "") -> str | None:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in {**there, **here}:
            inner = _first_difference(there.get(name), here.get(name), f"{key}.{name}" if key else name)
            if inner:
                return inner
        return None
    return None if there == here else f"{key} was {there!r}, is {here!r}"


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None = it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_hash() -> str | None:
    """Return the git commit of ehrdl's code, with `-dirty` added if files differ from it; None = no git repository."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count(), "gpus": gpus}
