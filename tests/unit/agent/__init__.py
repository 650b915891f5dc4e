"""The agent without a broker: what is recorded, sealed, queued, dropped and counted."""
