"""The example pg_steer, without a server."""
