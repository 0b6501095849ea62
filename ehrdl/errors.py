"""The errors that ehrdl raises on purpose. Each message is one line: what, where, the value, and what to do next."""

import errno
import re

#: However a library says that the disk is full: the operating system's words, DuckDB's, Arrow's, torch's.
_DISK_FULL = re.compile(
    r"no space left on device|disk quota exceeded|errno 28\b|StreamWriter failed writing|unexpected pos \d+ vs \d+",
    re.I,
)


class EhrdlError(Exception):
    """Base of every error that the command line prints as one line, with exit status 2."""


class SchemaError(EhrdlError):
    """Data do not have the declared form: a table, column, row or file is missing or wrong."""


class LeakageError(EhrdlError):
    """Something would let a feature see past its prediction time, or a subject stand in two splits."""


class ConfigError(EhrdlError):
    """A configuration value, or a combination of values, cannot be run."""


class WorkerError(EhrdlError):
    """A process that shared the work died; what was finished is kept, and the same command goes on from there."""


class MissingExtraError(EhrdlError):
    """An optional dependency is not installed; the message gives the command that installs it."""


def is_disk_full(error: Exception) -> bool:
    """Whether an error, of whatever library, means that the disk is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_DISK_FULL.search(str(error)))


#: What the file system refuses whoever asks: no permission, a read-only disk, too long a name, links in a circle.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def refused_path(error: Exception) -> str | None:
    """`PATH: reason` where the file system did not allow something with a file; None for any other error."""
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
