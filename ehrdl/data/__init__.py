"""From EVENTS and SAMPLES to batches, through one point-in-time cut (window.py)."""
