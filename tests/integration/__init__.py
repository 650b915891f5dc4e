"""The parts against real servers."""
