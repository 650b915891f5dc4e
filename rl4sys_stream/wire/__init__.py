"""Bytes to values and back: trajectories, snapshots of weights, and diffs between them.

In come field values and frames as Redis delivers them; out go frozen dataclasses over numpy arrays
(or, the other way, bytes). The agent encodes trajectories and applies diffs, the worker decodes
trajectories and encodes snapshots and diffs. Nothing here does I/O, and nothing decoded is trusted:
sizes are checked against the header and the client's spec before anything is allocated, and bytes
that do not decode end in a `WireError`, whatever they are.
"""
