"""The PhysioNet/CinC Challenge of 2019: hourly records of intensive care, and sepsis."""
