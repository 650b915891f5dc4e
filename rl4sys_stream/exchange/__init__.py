"""Model versions as files, and files as model versions.

In goes a retained version, out comes a file for other programs, or one that `importing` publishes
under another client. `ClientModels` is the door for programs, `cli` the one for people.
"""

from rl4sys_stream.exchange.client_models import ClientModels

__all__ = ["ClientModels"]
