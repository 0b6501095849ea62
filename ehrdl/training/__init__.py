"""Training: the Lightning module, its fitting and its predictions."""
