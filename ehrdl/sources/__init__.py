"""Sources: the readers that turn a hospital's tables into the EVENTS table."""

from ehrdl.lazy import lazily

_WHERE = {
    "Diabetes130": "diabetes130.source",
    "Meds": "meds.source",
    "Mimic4": "mimic4.source",
    "Physionet2012": "physionet2012.source",
    "Physionet2019": "physionet2019.source",
    "Synthetic": "synthetic",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
