"""Splits of subjects into training, tuning and held-out: by a hash of the subject_id, or read from files."""
