"""MIMIC-IV: its tables, and the times at which each fact is known."""
