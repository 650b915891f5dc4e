"""Model versions in the broker: the worker stages them, agents and people read them.

In comes what acting needs (weights and behaviour extras), out comes the same, bit for bit, by the
shortest way (a diff, a chain of diffs, or a keyframe and the diffs after it). Called by `worker`
(publisher), `agent` and `cli` (subscriber).
"""
