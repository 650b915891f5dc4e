"""Playing Gymnasium environments through an agent, at a real broker."""
