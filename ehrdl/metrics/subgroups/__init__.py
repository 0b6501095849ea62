"""Metrics of subgroups: how each group of patients is predicted, and how far it differs from all other patients."""
