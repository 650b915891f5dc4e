"""An agent that steers PostgreSQL's planner, one query at a time.

In: SQL. Out: its rows, by the plan that the agent expects to be fastest. Each module has one side
of it: `workload` asks, `database` talks to PostgreSQL, `hints` are the actions, `features` the
observations, `application` embeds the agent, `evaluation` holds it against what one does without.
`server` and `data` are for those who have no database at hand, `demo` runs it all.
"""
