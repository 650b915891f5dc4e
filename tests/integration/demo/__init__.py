"""The demo as a user runs it: through the command line, with real processes."""
