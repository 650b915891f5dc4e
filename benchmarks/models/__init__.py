"""What a model version costs on its way to agents, and what rounding it costs in behaviour.

`python -m benchmarks.models` trains, publishes and measures; the report goes to docs/benchmarks.
"""
