"""A film of the trained policy: a few episodes, the best one as an animated GIF."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl4sys_stream.agent import StreamAgent
from rl4sys_stream.cli.demo.messages import Landing
from rl4sys_stream.cli.demo.settings import ENVIRONMENT

__all__ = ["film_landing"]

EPISODES: Final = 5
FRAME_STEPS: Final = 2
FRAME_MS: Final = 40
"""The environment makes 50 steps a second; so does the film, with every other one in it."""
LAST_FRAME_MS: Final = 1500
SIZE: Final = (480, 320)
"""In pixels; the environment draws 600 x 400."""
COLORS: Final = 48
MAX_BYTES: Final = 1_500_000
SEED_OFFSET: Final = 1_000_000
"""Landing grounds that training has not seen."""


def film_landing(agent: StreamAgent, path: str, *, seed: int) -> Landing:
    """Let the newest policy land a few times, greedily and as it was trained, and film the best.

    PPO trains a policy that samples its actions; that it is as good when it does not is usual,
    and not certain so soon.

    Args:
        agent: Acts; nothing is recorded.
        path: Where the GIF goes.
        seed: Of the training; the landing grounds are others.

    Returns:
        The greedy returns, and what was filmed.
    """
    grounds = [SEED_OFFSET + 100 * seed + episode for episode in range(EPISODES)]
    with closing(_make(None)) as env:
        greedy = [_fly(agent, env, ground, deterministic=True) for ground in grounds]
        sampled = [_fly(agent, env, ground, deterministic=False) for ground in grounds]
    best = max(greedy + sampled, key=lambda flight: flight.total)
    with closing(_make("rgb_array")) as env:
        # Flown again from its record, because drawing takes ten times as long as flying.
        frames = _film(env, best)
    size_bytes = _write_film(frames, Path(path), caption=f"return {best.total:.0f}")
    return Landing(
        returns=tuple(flight.total for flight in greedy),
        filmed=best.total,
        version=agent.version,
        steps=len(best.actions),
        size_bytes=size_bytes,
    )


def _make(render_mode: str | None) -> "gymnasium.Env[NDArray[np.float32], int]":
    return gymnasium.make(ENVIRONMENT, render_mode=render_mode, disable_env_checker=True)


@dataclass(frozen=True, slots=True)
class _Flight:
    """One episode: where, what was done, and what it returned."""

    ground: int
    actions: tuple[int, ...]
    total: float


def _fly(
    agent: StreamAgent,
    env: "gymnasium.Env[NDArray[np.float32], int]",
    ground: int,
    *,
    deterministic: bool,
) -> _Flight:
    obs, _ = env.reset(seed=ground)
    actions: list[int] = []
    total, ended = 0.0, False
    while not ended:
        actions.append(agent.evaluate(obs, deterministic=deterministic).action)
        obs, reward, terminated, truncated, _ = env.step(actions[-1])
        total, ended = total + float(reward), terminated or truncated
    return _Flight(ground, tuple(actions), total)


def _film(env: "gymnasium.Env[NDArray[np.float32], int]", flight: _Flight) -> list[Image.Image]:
    env.reset(seed=flight.ground)
    frames: list[Image.Image] = []
    for step, action in enumerate(flight.actions):
        if step % FRAME_STEPS == 0:
            frames.append(_shot(env))
        env.step(action)
    return [*frames, _shot(env)]


def _shot(env: "gymnasium.Env[NDArray[np.float32], int]") -> Image.Image:
    pixels: NDArray[np.uint8] = np.asarray(env.render(), dtype=np.uint8)  # [400, 600, 3]
    return Image.fromarray(pixels).resize(SIZE, Image.Resampling.LANCZOS)


def _write_film(frames: list[Image.Image], path: Path, *, caption: str) -> int:
    """Write the GIF, with fewer frames if it grows too large; its size in bytes."""
    duration_ms = FRAME_MS
    while True:
        _save(frames, path, caption=caption, duration_ms=duration_ms)
        size = path.stat().st_size
        if size <= MAX_BYTES or len(frames) <= 2:  # noqa: PLR2004 - nothing left to leave out
            return size
        frames, duration_ms = [*frames[:-1:2], frames[-1]], duration_ms * 2


def _save(frames: list[Image.Image], path: Path, *, caption: str, duration_ms: int) -> None:
    palette = _common_palette(frames)
    shown = [frame.copy() for frame in frames]
    ImageDraw.Draw(shown[-1]).text((12, 10), caption, fill="white", font_size=16)
    # Without dithering what does not move stays the same from frame to frame, and costs nothing.
    films = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    films[0].save(
        path,
        save_all=True,
        append_images=films[1:],
        duration=[duration_ms] * (len(films) - 1) + [LAST_FRAME_MS],
        loop=0,
        optimize=True,
    )


def _common_palette(frames: list[Image.Image]) -> Image.Image:
    """One palette for all frames, from a few of them side by side."""
    chosen = frames[:: max(len(frames) // 8, 1)]
    width, height = chosen[0].size
    strip = Image.new("RGB", (width * len(chosen), height))
    for place, frame in enumerate(chosen):
        strip.paste(frame, (place * width, 0))
    return strip.quantize(COLORS)
