"""A client's model versions, for programs: what `rl4sys-stream models` does for people."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rl4sys_stream.broker.connection import DEFAULT_URL, Broker, BrokerAddress
from rl4sys_stream.broker.control import Selection
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import require_registration
from rl4sys_stream.broker.steering import Cause, caller, pin, unpin
from rl4sys_stream.clock import Clock, SystemClock
from rl4sys_stream.config import check_client_id, load_config
from rl4sys_stream.exchange.files import find_writer, format_of, read_model, write_file
from rl4sys_stream.exchange.importing import import_model
from rl4sys_stream.exchange.package import read_package

__all__ = ["ClientModels"]

RETRY_S: Final = 0.5


class ClientModels:
    """The versions of one client. Use it as a context, which ends its connection.

        with ClientModels("twin", redis_url=url) as models:
            models.export(training.best_version, Path("best.npz"))
        with ClientModels("live", redis_url=url) as models:
            models.import_file(Path("best.npz"), pinned=True, reason="the best on validation")

    Args:
        client_id: Name of the client; for `import_file` it need not be registered.
        redis_url: The broker; None takes the environment's, else redis://localhost:6379.
        environ: Instead of `os.environ`.
        clock: Instead of the system's.

    Raises:
        ConfigError: If the name or the URL is none, or an RL4SYS_STREAM_ variable is unknown.
        BrokerError: If the broker does not answer. Safe to try again.
    """

    def __init__(
        self,
        client_id: str,
        redis_url: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        config = load_config(None, environ=environ, redis_url=redis_url)
        self._clock = clock or SystemClock()
        self._keys = ClientKeys(check_client_id(client_id, path="client_id"))
        address = BrokerAddress.from_url(config.redis_url or DEFAULT_URL, environ)
        self._broker = Broker(address, name="rl4sys-models")
        self._broker.ping()

    def export(self, version: int, path: Path) -> None:
        """Write a retained version to a file, in the format that its ending says.

        Args:
            version: Of the client.
            path: It ends in .npz or .safetensors, which `import_file` reads, in .onnx or in .pt.

        Raises:
            UnknownClientError: If there is no such client.
            UnknownVersionError: If that version is not retained; names those that are.
            MissingExtraError: If what the format needs is not installed.
            UsageError: If the file cannot be written.
        """
        write = find_writer(format_of(path))
        self._require()
        write_file(path, write(read_package(self._broker, self._keys, version)))

    def import_file(
        self, path: Path, *, pinned: bool = False, force: bool = False, reason: str = ""
    ) -> int:
        """Publish the model in a file as the client's newest version, with or without a worker.

        Args:
            path: It ends in .npz or .safetensors.
            pinned: Hold all agents at it.
            force: Although a worker trains the client, which then goes on from there.
            reason: For `models history`.

        Returns:
            The version that it is now.

        Raises:
            WireError: If the file is no model.
            SpecMismatchError: If the client agreed on something else; names the fields.
            UsageError: If a worker holds the client and `force` is not given.
            BrokerError: The reply may be lost: look at the versions before trying again.
        """
        package, cause = read_model(path), self._cause(reason)
        head = import_model(
            self._broker, self._keys, package, cause, force=force, pause=self._pause
        )
        if pinned:
            pin(self._broker, self._keys, head.version, Selection(), cause)
        return head.version

    def pin(self, version: int, *, reason: str = "") -> None:
        """Hold all agents at a retained version, while training goes on.

        Raises:
            UnknownClientError: If there is no such client.
            UnknownVersionError: If that version is not retained; names those that are.
            BrokerError: Safe to call again.
        """
        self._require()
        pin(self._broker, self._keys, version, Selection(), self._cause(reason))

    def unpin(self, *, reason: str = "") -> None:
        """Let agents follow the newest version again; takes all pins away, if there are any.

        Raises:
            UnknownClientError: If there is no such client.
            BrokerError: Safe to call again.
        """
        self._require()
        unpin(self._broker, self._keys, "", self._cause(reason))

    def close(self) -> None:
        """End the connection."""
        self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require(self) -> None:
        require_key_types(self._broker, self._keys)
        require_registration(self._broker, self._keys)

    def _cause(self, reason: str) -> Cause:
        return Cause(caller(), self._clock.wall_ms(), reason)

    def _pause(self) -> None:
        self._clock.wait(threading.Event(), RETRY_S)
