"""Who is for training, tuning and held out: drawn by subject, or read from files."""
