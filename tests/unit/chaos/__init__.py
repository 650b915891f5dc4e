"""The judge of the chaos run."""
