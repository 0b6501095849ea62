"""The folder of a run: its files, what they record, and who looked at its held-out samples."""
