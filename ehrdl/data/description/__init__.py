"""Describes a cohort for the report: Table 1, dates and setting, predictors and their missing values."""
