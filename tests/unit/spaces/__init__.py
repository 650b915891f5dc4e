"""Spaces as plain data, from and to other forms, and observations made flat."""
