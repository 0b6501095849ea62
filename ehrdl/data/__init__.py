"""Turns EVENTS and SAMPLES into batches. Facts that were not yet available are cut in one place, `window.py`."""

from ehrdl.lazy import lazily

_WHERE = {
    "BatchOptions": "config",
    "ClinicalDataModule": "module",
    "DataConfig": "config",
    "NoteOptions": "config",
    "Window": "window",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
