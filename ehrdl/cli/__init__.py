"""The command line."""

from ehrdl.lazy import lazily

_WHERE = dict.fromkeys(
    ("export", "init", "predict", "prepare", "pretrain", "report", "train", "train_parser", "tune"), "main"
)
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
