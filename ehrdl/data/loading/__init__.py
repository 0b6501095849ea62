"""The way from samples to batches: chunks of notes, samplers, budgets, collation."""
