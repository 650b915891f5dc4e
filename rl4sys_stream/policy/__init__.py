"""Acting in numpy: from an observation to an action and its log-probability, in microseconds.

In come decoded `Weights` with their `BehaviorExtras`, and flattened observations; out go actions
with the log-probability that the learner needs. The agent acts with it, the model store carries the
extras, and the algorithms take tensor names from it. Nothing here does I/O or reaches torch, and a
policy never changes: any number of threads may act with one at a time.
"""
