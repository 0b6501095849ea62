"""Options of a configuration: types with bounds, options of training, and options of a search. None imports torch."""

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
