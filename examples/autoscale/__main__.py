"""`python -m examples.autoscale`: the demo, without the command line of the package."""

import sys

from examples.autoscale.demo import command

if __name__ == "__main__":
    sys.exit(command(standalone_mode=False))
