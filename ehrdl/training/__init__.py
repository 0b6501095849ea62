"""The Lightning module, how it is fitted, and how it predicts."""
