"""A TCP proxy that loses replies, cuts connections, or swallows everything.

    agents or workers ── proxy ── broker

`pass` forwards. `lose_replies` forwards requests, and every now and then ends a connection instead
of handing on what the broker answered: the request was carried out, and nobody knows. `blackhole`
keeps connections open and forwards nothing. `refuse` ends what connects. `slow` forwards all, late.
"""

import asyncio
import contextlib
import random
import threading
from typing import Literal

__all__ = ["ChaosProxy", "Mode"]

Mode = Literal["pass", "lose_replies", "blackhole", "refuse", "slow"]
CHUNK = 1 << 16
LOST_SHARE = 0.2
"""Of the replies, while replies are lost."""
STALL_S = 0.05
SLOW_S = (0.2, 0.8)
"""Of each piece, one way."""


class ChaosProxy:
    """Runs in a thread of its own, on a loopback port that stays the same."""

    def __init__(self, target_port: int, seed: int) -> None:
        """Start to listen.

        Args:
            target_port: Where the broker listens, or will.
            seed: Of the choice of lost replies.
        """
        self._target_port = target_port
        self._random = random.Random(seed)
        self._mode: Mode = "pass"
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self.port = 0
        self.lost = 0
        """Replies that were lost on purpose."""
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        self._thread.start()
        self._ready.wait()

    def set_mode(self, mode: Mode) -> None:
        """What happens to bytes from now on."""
        self._mode = mode

    def reset(self) -> None:
        """End every connection that is open."""
        asyncio.run_coroutine_threadsafe(self._abort_all(), self._loop).result(5)

    def close(self) -> None:
        """Stop listening, and end every connection; safe to repeat."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()
        self._mode = "pass"  # nobody stays in a black hole
        while self._writers:
            await self._abort_all()
            await asyncio.sleep(STALL_S)  # their tasks find that out

    async def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refuse":
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            tasks = [
                asyncio.ensure_future(self._forward(reader, far_writer, replies=False)),
                asyncio.ensure_future(self._forward(far_reader, writer, replies=True)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in pair:
                one.transport.abort()
            await asyncio.gather(*tasks)
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                while self._mode == "blackhole":  # noqa: ASYNC110 -- threads set the mode
                    await asyncio.sleep(STALL_S)
                if self._mode == "slow":
                    await asyncio.sleep(self._random.uniform(*SLOW_S))
                if replies and self._loses():
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()

    def _loses(self) -> bool:
        return self._mode == "lose_replies" and self._random.random() < LOST_SHARE
