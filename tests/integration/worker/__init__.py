"""The worker: its parts on a real server, and whole as a process of its own."""
