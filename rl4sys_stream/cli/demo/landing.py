"""A film of the trained policy: a few greedy episodes, the best one as an animated GIF."""

from contextlib import closing
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
    """Let the newest policy land a few times, and film the best.

    Args:
        agent: Acts greedily; nothing is recorded.
        path: Where the GIF goes.
        seed: Of the training; the landing grounds are others.
    """
    seeds = [SEED_OFFSET + 100 * seed + episode for episode in range(EPISODES)]
    with closing(_make(None)) as env:
        returns = [_play(agent, env, seed=ground)[0] for ground in seeds]
    # Played again, because drawing takes ten times as long as flying.
    best = seeds[returns.index(max(returns))]
    frames: list[Image.Image] = []
    with closing(_make("rgb_array")) as env:
        filmed, steps = _play(agent, env, seed=best, frames=frames)
    size_bytes = _write_film(frames, Path(path), caption=f"return {filmed:.0f}")
    return Landing(
        returns=tuple(returns),
        filmed=filmed,
        version=agent.version,
        steps=steps,
        size_bytes=size_bytes,
    )


def _make(render_mode: str | None) -> "gymnasium.Env[NDArray[np.float32], int]":
    return gymnasium.make(ENVIRONMENT, render_mode=render_mode, disable_env_checker=True)


def _play(
    agent: StreamAgent,
    env: "gymnasium.Env[NDArray[np.float32], int]",
    *,
    seed: int,
    frames: list[Image.Image] | None = None,
) -> tuple[float, int]:
    """One greedy episode, filmed into `frames` if given: its return, its steps."""
    obs, _ = env.reset(seed=seed)
    total, steps, ended = 0.0, 0, False
    while True:
        if frames is not None and (ended or steps % FRAME_STEPS == 0):
            frames.append(_shot(env))
        if ended:
            return total, steps
        obs, reward, terminated, truncated, _ = env.step(agent.evaluate(obs).action)
        total, steps, ended = total + float(reward), steps + 1, terminated or truncated


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
