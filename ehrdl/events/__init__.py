"""The table EVENTS: what a source is, how its rows are written, checked and listed."""
