"""Programs that show how an application embeds an agent; each runs alone."""
