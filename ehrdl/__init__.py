"""ehrdl: deep learning for clinical text and time series."""

import os
from importlib.metadata import PackageNotFoundError, version

from ehrdl.moved import forward

# An OpenMP thread that waits for others spins, for as long as several time slices: beside another process on the same
# cores it takes them from the threads that it waits for, and gradient boosting becomes 20 times slower. scikit-learn,
# LightGBM, XGBoost and torch each read this once, when they are loaded; processes that are started inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    __version__ = version("ehrdl")
except PackageNotFoundError:  # running from a checkout that is not installed
    __version__ = "0+unknown"

forward()

__all__ = ["__version__"]
