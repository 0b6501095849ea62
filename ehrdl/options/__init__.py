"""The options of a configuration: rules for values, options of training and of a search. Nothing here imports torch."""

from ehrdl.lazy import lazily

_WHERE = {
    "Boosting": "training",
    "Combine": "training",
    "LoggerOptions": "training",
    "Optim": "training",
    "Pretrained": "pretrained",
    "ReportOptions": "training",
    "RunOptions": "training",
    "TuneOptions": "search",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
