"""Families of metrics that are computed together, in many draws of subjects at once."""
