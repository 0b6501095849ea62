"""Checks the `trainer` part of a configuration, as far as possible without an import of Lightning and torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound, nearest
from ehrdl.options.signatures import arguments

TRAINER = "pytorch_lightning.trainer.trainer.Trainer"
OURS = ("logger", "callbacks", "default_root_dir", "enable_checkpointing")
#: Arguments with which Lightning turns checkpoints off. A run needs checkpoints.
NO_RUN = ("fast_dev_run", "barebones")
#: Bounds that exclude values which Lightning accepts although they are impossible or train nothing.
_BOUNDS = {
    "max_epochs": Bound("[1, inf)"),
    "max_steps": Bound("[1, inf)"),
    "min_epochs": Bound("[0, inf)"),
    "min_steps": Bound("[0, inf)"),
    "num_nodes": Bound("[1, inf)"),
    "accumulate_grad_batches": Bound("(0, inf)"),
    "limit_train_batches": Bound("(0, inf)"),
    "limit_val_batches": Bound("(0, inf)"),
    "check_val_every_n_epoch": Bound("(0, inf)"),
    "val_check_interval": Bound("(0, inf)"),
    "log_every_n_steps": Bound("[0, inf)"),
    "gradient_clip_val": Bound("[0, inf)"),
    "reload_dataloaders_every_n_epochs": Bound("[0, inf)"),
}
#: Days, hours, minutes and seconds, as in `max_time`.
_TIME = re.compile(r"(\d+):(\d+):(\d+):(\d+)")
_UNITS = ("days", "hours", "minutes", "seconds", "weeks", "milliseconds", "microseconds")


def check_arguments(trainer: Any) -> None:
    """Refuse unknown arguments of Lightning's Trainer, arguments that ehrdl sets itself, and impossible values.

    Args:
        trainer: the `trainer` part of a configuration.

    Raises:
        ConfigError: an argument is wrong. The message names the key and, for an unknown one, the nearest known key.
    """
    if not isinstance(trainer, Mapping):
        raise ConfigError(f"trainer: expected dict, got {trainer!r}; {{}} leaves all to ehrdl")
    check_keys(trainer)
    for key, value in trainer.items():
        if key in NO_RUN and value:
            raise ConfigError(f"trainer.{key}: keeps no checkpoint; use trainer.limit_train_batches for a quick run")
        _check_kind(key, value)
        _check_value(key, value)


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse unknown arguments of Lightning's Trainer, and arguments that ehrdl sets itself.

    Args:
        keys: the names of the arguments.

    Raises:
        ConfigError: a name is wrong. The message contains the name and, if it is unknown, the most similar known name.
    """
    takes = arguments(TRAINER) or {}
    allowed = [name for name in takes if name not in (*OURS, *NO_RUN)]
    for key in keys:
        if key in OURS:
            raise ConfigError(f"trainer.{key}: set by ehrdl; leave it out")
        if takes and key not in takes:  # without Lightning's source, Lightning checks it later
            said = f"not an argument of pytorch_lightning.Trainer{nearest(key, allowed) or '.'}"
            raise ConfigError(f"trainer.{key}: {said} Allowed: {', '.join(allowed)}")


def _check_kind(key: str, value: Any) -> None:
    """Refuse a value of the wrong type."""
    argument = (arguments(TRAINER) or {}).get(key)
    kinds = argument.kinds if argument else None
    fits = kinds is None or type(value) in kinds or (type(value) is int and float in kinds)
    if not fits:
        assert kinds is not None
        names = sorted("null" if kind is type(None) else kind.__name__ for kind in kinds)
        hint = "; give DD:HH:MM:SS in quotes, such as '00:02:00:00'" if key == "max_time" else ""
        raise ConfigError(f"trainer.{key}: expected {' or '.join(names)}, got {value!r}{hint}")


def _check_value(key: str, value: Any) -> None:
    """Refuse a number or a time that would train nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"trainer.{key}: {value} is not finite")
    endless = key in ("max_epochs", "max_steps") and value == -1
    if key in _BOUNDS and isinstance(value, int | float) and not endless and (reason := _BOUNDS[key].broken(value)):
        raise ConfigError(f"trainer.{key}: {value} {reason}")
    if key == "max_time" and value is not None:
        _check_time(value)


def _check_time(value: str | Mapping[str, Any]) -> None:
    """Refuse a time that would train nothing."""
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        parts = [int(part) for part in match.groups()] if match else []
    else:
        numbers = all(isinstance(part, int | float) and not isinstance(part, bool) for part in value.values())
        parts = list(value.values()) if numbers and set(value) <= set(_UNITS) else []
    if not parts:
        raise ConfigError(f"trainer.max_time: {value!r} is no time; give DD:HH:MM:SS, such as 00:02:00:00")
    if any(part < 0 for part in parts) or sum(parts) <= 0:
        raise ConfigError(f"trainer.max_time: {value!r} trains nothing; give a time above 0, or leave it out")
