"""ehrdl: deep learning for clinical text and time series."""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# An OpenMP thread that waits for others spins, for as long as several time slices: beside another process on the same
# cores it takes them from the threads that it waits for, and gradient boosting becomes 20 times slower. scikit-learn,
# LightGBM, XGBoost and torch each read this once, when they are loaded; processes that are started inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    __version__ = version("ehrdl")
except PackageNotFoundError:  # running from a checkout that is not installed
    __version__ = "0+unknown"

#: Public names and the modules that define them, imported when they are first used: `import ehrdl` loads no torch.
_WHERE = {
    "Cohort": "cohort",
    "Experiment": "experiment.experiment",
    "Run": "api",
    "fit": "api",
    "load": "api",
    "open_run": "api",
}
_PACKAGES = ("data", "errors", "metrics", "models", "options", "sources", "tasks")

__all__ = ["__version__", *_WHERE, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"ehrdl.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'ehrdl' has no attribute {name!r}")
    return getattr(import_module(f"ehrdl.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
