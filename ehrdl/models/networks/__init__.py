"""Whole networks, from a batch to logits."""
