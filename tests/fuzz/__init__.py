"""Hostile bytes against every decoder: a table of targets, mutations, tests and a campaign."""
