"""Model versions on a real server."""
