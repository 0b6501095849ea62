"""Prediction tasks, one file each. A task reads the EVENTS table and returns the SAMPLES table."""

from ehrdl.lazy import lazily

_WHERE = {
    "DiabetesReadmission": "diabetes",
    "HeartFailure": "heart_failure",
    "HourlySepsis": "sepsis2019",
    "IcuStays": "length_of_stay",
    "Joint": "joint",
    "Labels": "labels",
    "LengthOfStay": "length_of_stay",
    "Mortality": "mortality",
    "Readmission": "readmission",
    "Task": "common.base",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
