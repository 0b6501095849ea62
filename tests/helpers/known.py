"""`evaluate` and `summarize` of PREDICTIONS whose models are named as a run's are, and so are known."""

from ehrdl.comparators.known import model_infos
from ehrdl.info import RunInfo
from ehrdl.metrics import evaluate as metrics
from ehrdl.metrics.challenges import utility_named
from ehrdl.report import summary


def info_of(table, units=None, **known):
    utilities = {"sepsis_2019": utility_named("physionet2019")}
    return RunInfo({info.name: info for info in model_infos(table["model"])}, units or {}, utilities, **known)


def evaluate(table, units=None, **options):
    return metrics.evaluate(table, info=info_of(table, units), **options)


def summarize(table, scores, flow=None, manifest=None, config=None, min_count=10):
    models = {"models": [info.to_dict() for info in model_infos(table["model"])]}
    return summary.summarize(table, scores, flow, models | (manifest or {}), config, min_count)
