"""The folder of a run: its files and their hashes, and the ledger of runs scored on the same held-out samples."""
