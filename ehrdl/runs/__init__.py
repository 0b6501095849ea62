"""The folder of a run: its files, their records, and the ledger of scores on its held-out samples."""
