"""Codecs: what goes in comes out, and whatever else comes in is refused by name."""
