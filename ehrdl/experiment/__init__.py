"""One experiment: a cohort, the models that are compared on it, and their report."""

from ehrdl.lazy import lazily

_WHERE = {"Experiment": "experiment", "Settings": "settings", "BASELINES": "settings"}

__all__ = ["BASELINES", "Experiment", "Settings"]
__getattr__, __dir__ = lazily(__name__, _WHERE)
