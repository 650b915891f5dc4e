"""Tests without sockets, processes or waiting."""
