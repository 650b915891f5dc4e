"""`python -m rl4sys_stream` is the console script."""

from rl4sys_stream.cli.main import main

if __name__ == "__main__":
    main()
