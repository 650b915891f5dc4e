"""The example batch_sched, without a broker."""
