"""Arrays in, numbers out: discrimination, calibration, bootstrap."""
