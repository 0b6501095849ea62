"""`python -m ehrdl`: the console command, where it is not on the path."""

from ehrdl.cli.main import main

if __name__ == "__main__":
    main()
