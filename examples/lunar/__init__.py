"""Lunar Lander: RL4Sys's first example, unchanged in use."""
