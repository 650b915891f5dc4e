"""The dispatcher against a real broker: with processes that only pretend, and with real ones."""
