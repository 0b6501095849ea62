"""Tests run in two processes (`pyproject.toml`), of one thread each: more would fight over two cores."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # set before torch is imported, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")
