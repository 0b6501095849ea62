"""The errors that ehrdl raises on purpose. Each message is one line: what, where, the value, and what to do next."""

import errno
import re

#: Messages for a full disk, as the operating system, DuckDB, Arrow and torch word them.
_DISK_FULL = re.compile(
    r"no space left on device|disk quota exceeded|errno 28\b|StreamWriter failed writing|unexpected pos \d+ vs \d+",
    re.I,
)


class EhrdlError(Exception):
    """Base of every error that the command line prints as one line, with exit status 2."""


class SchemaError(EhrdlError):
    """Data do not have the declared form: a table, column, row or file is missing or wrong."""


class LeakageError(EhrdlError):
    """A feature could contain facts from after its prediction time, or a subject is in two splits."""


class ConfigError(EhrdlError):
    """A configuration value, or a combination of values, is not allowed."""


class WorkerError(EhrdlError):
    """A worker process died. Finished work is kept, and the same command completes the rest."""


class MissingExtraError(EhrdlError):
    """An optional dependency is not installed; the message gives the command that installs it."""


def is_disk_full(error: Exception) -> bool:
    """Return whether an error means that the disk is full, whichever library raised it."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_DISK_FULL.search(str(error)))


#: Refusals of the file system: no permission, a read-only disk, a name that is too long, links in a circle.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def refused_path(error: Exception) -> str | None:
    """Return `PATH: reason` if the file system refused access to a file, and None for any other error."""
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
