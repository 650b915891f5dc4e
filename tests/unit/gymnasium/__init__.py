"""Environments by name, and the pace."""
