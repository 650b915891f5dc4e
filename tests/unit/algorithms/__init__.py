"""The algorithms against closed forms, independent implementations and hand-computed cases."""
