"""The example batch_sched, on a real broker."""
