"""The example autoscale over a real broker: live pools, and learning."""
