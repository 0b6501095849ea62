"""The source for Diabetes 130-US hospitals: one row per hospital stay, with the outcome readmission."""
