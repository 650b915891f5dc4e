"""The command line: parsing, printing, exit codes. One file a command group, imported when used.

In come arguments and the environment, out go lines for people, JSON for programs (`--json`), and
the exit codes of `errors.ExitCode`. Decides nothing that a library user could not decide.
"""
