"""Encoders of notes: (chunks, tokens) -> (samples, width)."""
