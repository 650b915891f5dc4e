"""The agent against real brokers: sending, refreshing, registering, forking and leaving."""
