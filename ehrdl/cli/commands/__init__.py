"""The commands, one module each, with `DESCRIPTION` and `run(argv, prog)`."""
