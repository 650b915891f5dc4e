"""The dispatcher's tests ask the commands what they see."""

from tests.integration.cli.conftest import as_it_was, run

__all__ = ["as_it_was", "run"]
