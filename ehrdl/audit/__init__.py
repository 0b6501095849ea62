"""The leak audit: probes of a run that has just been fitted, each of which passes, fails or cannot be made."""
