"""The broker package on a real server."""
