"""The example pg_steer, on a real PostgreSQL."""
