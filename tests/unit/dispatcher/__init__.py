"""How a dispatcher counts failures and spaces restarts."""
