"""From PREDICTIONS to a summary, plots and one HTML file."""
