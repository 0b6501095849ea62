"""`evaluate` and `summarize` of PREDICTIONS whose models are named as a run's are, and so are known."""

from ehrdl.comparators.known import model_infos
from ehrdl.info import RunInfo
from ehrdl.metrics import evaluate as metrics
from ehrdl.metrics.challenges import utility_named
from ehrdl.options.training import ReportOptions
from ehrdl.report import summary
from ehrdl.report.groups import add_subgroups


def info_of(table, units=None, **known):
    utilities = {"sepsis_2019": utility_named("physionet2019")}
    return RunInfo({info.name: info for info in model_infos(table["model"])}, units or {}, utilities, **known)


def evaluate(table, units=None, **options):
    info = info_of(table, units)
    return add_subgroups(metrics.evaluate(table, info=info, **options), table, ReportOptions(), info)


def summarize(table, scores, flow=None, manifest=None, config=None, min_count=10):
    models = {"models": [info.to_dict() for info in model_infos(table["model"])]}
    return summary.summarize(table, scores, flow, models | (manifest or {}), config, min_count)
