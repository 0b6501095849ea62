"""Encoders of clinical notes: token ids (chunks, tokens) -> features (samples, width)."""
