"""ehrdl: deep learning for clinical text and time series."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ehrdl")
except PackageNotFoundError:  # running from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
