"""The delivery rules of DESIGN.md §5 as a model, explored exhaustively, and as a state machine.

`explore.py` walks every state that a small world (one or two agents, a broker that loses its last
writes, a worker and its zombie) can reach, and checks in each that nothing is lost and nothing is
trained twice. The worker's books and ledgers in it are the shipped classes. The rules can be broken
on purpose, one at a time (`rules.py`); the tests hold that each break is found.
"""
