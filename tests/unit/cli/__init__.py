"""The command line: its shape, its words, its exit codes."""
