"""The process around one algorithm: lease, intake, learner, publication.

In come the entries of one client's stream, out go model versions, checkpoints and the fate of
every entry. Started by `rl4sys-stream worker --client C`, usually by the dispatcher. The maths is
in `algorithms`; everything that can fail for reasons of its own is here.
"""
