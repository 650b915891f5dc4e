"""A second reader of the protocol, written from clients/PROTOCOL.md alone.

It shares no code with the package, and uses struct, json, numpy, zstandard and xxhash. What it
lacks is speed; where it and the package disagree about a vector, the document is not clear.
"""
