"""From a hospital's tables to batches, through one point-in-time cut (window.py)."""
