"""Turns samples into batches: chunks of notes, samplers, token budgets, collation."""
