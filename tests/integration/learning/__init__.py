"""The comparison of learning, through its processes."""
