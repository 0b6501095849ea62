"""Metrics, from arrays to numbers: discrimination, calibration, bootstrap."""
