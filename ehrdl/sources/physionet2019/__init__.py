"""The source for the PhysioNet/CinC Challenge 2019: hourly records of intensive care, with the outcome sepsis."""
