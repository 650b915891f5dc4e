"""Ledgers, balances, keys and addresses: what needs no server to be wrong."""
