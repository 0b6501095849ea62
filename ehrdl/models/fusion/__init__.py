"""Fusions: the encoded modalities of a sample become one vector."""
