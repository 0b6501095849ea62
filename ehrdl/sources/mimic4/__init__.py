"""The source for MIMIC-IV: its tables, and the rules for when each fact becomes available."""
