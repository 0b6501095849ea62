"""The series: the store of all subjects' observations, and findings about impossible values."""
