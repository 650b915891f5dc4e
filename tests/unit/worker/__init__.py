"""The worker's books and statistics."""
