"""Tests of benchmarks/learning: when a run counts as learned, and what is kept of it."""
