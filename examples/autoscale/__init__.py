"""An agent that decides how many replicas a service runs, twice a second.

In: a demand over time. Out: replicas, neither idle nor late. `demand` is the load, `control` the
loop that all controllers share, `twin` and `pool` are what it controls: a simulation, and real
processes behind a Redis list (`replica`). `application` embeds the agent, `training` lets it learn
on twins, `baselines` are what one does without, `evaluation` holds them against each other, and
`demo` runs it all.
"""
