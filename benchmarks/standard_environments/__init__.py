"""Do the shipped definitions of standard environments learn what can be learned there?

In: environments (`tasks.py`), each with its definition in workers/, and seeds. Out: the score of
each trained policy beside its reference, in docs/benchmarks/standard_environments.json and .md.
Where an environment's rules are known, reference and score are no samples: the reference is the
optimum (`finite.py`, `blackjack.py`), and the score is what the greedy policy earns in the mean.
`python -m benchmarks.standard_environments` calls it.
"""
