"""The command line of ehrdl."""

from ehrdl.lazy import lazily

_WHERE = {"train_parser": "configured"}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
