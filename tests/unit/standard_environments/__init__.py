"""Tests of benchmarks/standard_environments, and of the definitions that it trains by."""
