"""The learning rules: trajectories in, a policy to publish and metrics out.

What comes in are accepted trajectories with their policy lag (`base.Sample`); what goes out is the
actor alone (`base.PolicyExport`), the metrics of each update, and a private state to resume from.
The worker calls all of it. Here is arithmetic only: torch and numpy, but no Redis, no threads, no
processes, no files and no clock.
"""
