"""An algorithm for bandits: it counts what each action was worth, and prefers the best."""
