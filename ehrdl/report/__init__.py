"""Turns PREDICTIONS into a summary, plots and one HTML file."""
