"""Commands that run in this process leave its logging and signals as they were."""

from tests.integration.cli.conftest import as_it_was

__all__ = ["as_it_was"]
