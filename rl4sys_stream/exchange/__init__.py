"""Model versions as files, and files as model versions.

In goes a retained version, out comes a file for other programs, or one that `importing` publishes
under another client. Called by `cli`.
"""
