"""The way from EVENTS and SAMPLES to batches, through the point-in-time cut (`window.py`)."""

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
