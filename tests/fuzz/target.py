"""What a target is: a decoder, what it may raise, and what it may cost."""

from collections.abc import Callable
from dataclasses import dataclass

from rl4sys_stream.errors import StreamError

__all__ = ["MAX_MESSAGE_CHARS", "Target"]

MAX_MESSAGE_CHARS = 4_096
"""A message ends up in a log line or in the quarantine; what was sent must not fill either."""


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder.

    Attributes:
        name: On the command line and in file names.
        decode: Decodes and, where something comes out, uses it as its caller would.
        named: Errors that it may end with; anything else is a finding.
        seeds: Valid inputs from our own encoders, and prepared attacks.
        honest: How many of the seeds, from the first on, decode: a decoder that refused all of them
            would be within its contract otherwise.
        fields: Whether inputs are containers (see containers.py).
        fixed_bytes: Memory that the decoder's own limits allow it whatever it is sent.
        bytes_per_byte: Memory for each byte received: Python's smallest objects take about 60
            bytes, and JSON needs two or three characters for one.
    """

    name: str
    decode: Callable[[bytes], object]
    named: type[StreamError] | tuple[type[StreamError], ...]
    seeds: tuple[bytes, ...]
    honest: int = 1
    fields: bool = False
    fixed_bytes: int = 1 << 20
    bytes_per_byte: int = 64

    def __call__(self, data: bytes) -> None:
        """Decode `data`; return if it succeeds or ends in a named error with a fit message."""
        try:
            self.decode(data)
        except self.named as error:
            message = str(error)
            if len(message) > MAX_MESSAGE_CHARS:
                raise ValueError(f"a message of {len(message)} characters") from error
            message.encode()  # a terminal and a log can show it

    def allowed_bytes(self, data: bytes) -> int:
        """Peak memory that decoding `data` may take."""
        return self.fixed_bytes + self.bytes_per_byte * len(data)
