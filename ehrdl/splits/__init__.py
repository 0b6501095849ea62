"""Splits of subjects into training, tuning and held-out: drawn by subject, or read from files."""
