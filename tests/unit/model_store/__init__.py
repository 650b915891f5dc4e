"""Which versions a reader asks for."""
