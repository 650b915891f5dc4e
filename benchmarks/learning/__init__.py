"""Does it learn, how many steps does it take, and how long? Side by side with Stable-Baselines3.

In: the cases (`cases.py`), each with its sides, and seeds. Out: a file a run (`record.py`), and
from all of them docs/benchmarks/learning.json, learning.md and a picture a case (`report.py`).
`python -m benchmarks.learning` calls it, `make bench-learning` that.
"""
