"""Checklists and a model card, filled from the files of a run: each answer names the line that shows it."""
