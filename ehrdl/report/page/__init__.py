"""The HTML file: its text, its plots, its styles and its script."""
