"""Kills, pauses and cuts, on purpose; nothing may be lost or trained twice."""
