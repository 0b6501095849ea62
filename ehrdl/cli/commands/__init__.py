"""A module per command, with `DESCRIPTION` and `run(argv, prog)`."""
