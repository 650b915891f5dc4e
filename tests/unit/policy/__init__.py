"""Acting: parity with torch, exact masks, honest log-probabilities."""
