"""The vectors that hold every implementation of the protocol to account, our own first."""
