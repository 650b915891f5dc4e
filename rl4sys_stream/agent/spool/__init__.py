"""What an agent keeps on disk, so that a kill of its application loses nothing that was ended.

In come sealed trajectories and what becomes of them; out come, in the same process or the next,
the same books and every trajectory that the broker may not have yet. One folder an agent, held by
a lock; folders whose agent is dead are adopted by the next one. No network, no torch.
"""
