"""Features with one row per sample: static ones, the coded history, and the table that baselines read."""
