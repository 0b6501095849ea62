"""The start of every command: the environment, one line per error, and a small parser for its own options."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ehrdl.cli.parser import fail
from ehrdl.errors import EhrdlError, is_disk_full, refused_path
from ehrdl.processes.signals import last_words, stoppable


def set_environment() -> None:
    """Set the environment variables that must be set before torch and tokenizers are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors that ehrdl raises on purpose into one line; anything else is a bug and keeps its traceback."""
    try:
        with stoppable():
            yield
    except EhrdlError as error:
        fail(" ".join(str(error).split()))
    except Exception as error:
        if is_disk_full(error):
            reason = " ".join(str(error).split())[:200]
            fail(f"the disk is full ({reason}); free some space, or move data.prepare.cache and run.root")
        if refused := refused_path(error):
            fail(f"{refused}; see who may read and write there, or name another place")
        raise
    except KeyboardInterrupt:
        last_words()
        raise SystemExit(130) from None


class OptionParser(argparse.ArgumentParser):
    """A small parser whose every error is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the reason and exit with status 2."""
        fail(f"{message} (see {self.prog} --help)")
