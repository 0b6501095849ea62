"""Encoders of irregular series: (samples, observations) -> (samples, width)."""
