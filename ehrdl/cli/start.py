"""What all commands share: the environment, errors as one line, and a small parser for a command's own options."""

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
    """Set the environment variables that torch and tokenizers read on import, and hide deprecation warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print an expected error of the `with` block as one line, and exit. Any other error is a bug, with a traceback."""
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
    """A parser for a command's own options. It reports each error in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the reason of an error in one line, and exit with status 2."""
        fail(f"{message} (see {self.prog} --help)")
