"""Diabetes 130-US hospitals: one row per encounter, and readmission."""
