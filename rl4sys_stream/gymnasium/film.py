"""A film of a policy: a few episodes that are not recorded, the best one as an animated picture."""

import importlib.util
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.agent import StreamAgent
from rl4sys_stream.errors import ConfigError, MissingExtraError
from rl4sys_stream.gymnasium.environments import Environment, make_environment
from rl4sys_stream.gymnasium.evaluation import MAX_STEPS
from rl4sys_stream.gymnasium.fleet import in_its_axes, mask_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "Film", "check_film_path", "film"]

FORMATS: Final = (".gif", ".webp")
FRAMES_PER_S: Final = 25.0
SLOWEST_PER_S: Final = 4.0
"""Environments whose steps are moves of a game name this or nothing; so one can follow them."""
LAST_FRAME_MS: Final = 1500
LONGEST_SIDE: Final = 480
"""In pixels."""
MAX_FRAMES: Final = 500
COLORS: Final = 48
MAX_BYTES: Final = 1_500_000
SEED_OFFSET: Final = 1_000_000
"""Far from the seeds of training, so that the episodes are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What was played, and what is to be seen.

    Attributes:
        returns: Of the episodes in which the most probable action was taken.
        filmed: Return of the episode in the film: the best one, drawn actions included.
        steps: Its environment steps.
        version: Model version that acted.
        size_bytes: Of the file.
    """

    returns: tuple[float, ...]
    filmed: float
    steps: int
    version: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Flight:
    """One episode: its seed, what was done, and what it returned."""

    seed: int
    actions: tuple[Any, ...]
    total: float


def check_film_path(path: Path) -> None:
    """Refuse what could not be written at the end.

    Raises:
        ConfigError: If the name has an ending that is not known here.
        MissingExtraError: If Pillow is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path}: a film ends in {' or '.join(FORMATS)}; ffmpeg makes other formats of it"
        )
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("Pillow, which writes films,", "examples")


def film(
    environment: str | Callable[[str | None], Environment],
    agent: StreamAgent,
    path: str | Path,
    *,
    episodes: int = 5,
    seed: int = 1,
    max_steps: int = MAX_STEPS,
) -> Film:
    """Let the newest policy play, greedily and as it was trained, and film the best episode.

    That a policy is as good when it does not sample is usual, and not certain early on.

    Args:
        environment: An id, or what makes an environment for a render mode ("rgb_array" or None).
        agent: Acts; nothing is recorded.
        path: Where the film goes; `.gif` or `.webp`.
        episodes: How many of each kind.
        seed: Of training; the episodes have others.
        max_steps: A longer episode is stopped.

    Raises:
        ConfigError: If there is no such environment, it draws no pictures, or the format is
            unknown.
        MissingExtraError: If Pillow is not installed.
    """
    path = Path(path)
    check_film_path(path)
    seeds = [SEED_OFFSET + 100 * seed + episode for episode in range(episodes)]
    with closing(_make(environment, None)) as env:
        greedy = [_play(agent, env, s, max_steps, deterministic=True) for s in seeds]
        sampled = [_play(agent, env, s, max_steps, deterministic=False) for s in seeds]
    best = max(greedy + sampled, key=lambda flight: flight.total)
    with closing(_make(environment, "rgb_array")) as env:
        # Played again from its record, because drawing takes far longer than playing.
        frames, frame_ms = _frames(env, best)
    _write(frames, path, caption=f"return {best.total:.4g}", frame_ms=frame_ms)
    return Film(
        returns=tuple(flight.total for flight in greedy),
        filmed=best.total,
        steps=len(best.actions),
        version=agent.version,
        size_bytes=path.stat().st_size,
    )


def _make(
    environment: str | Callable[[str | None], Environment], render_mode: str | None
) -> Environment:
    if isinstance(environment, str):
        return make_environment(environment, render_mode=render_mode)
    return environment(render_mode)


def _play(
    agent: StreamAgent, env: Environment, seed: int, max_steps: int, *, deterministic: bool
) -> _Flight:
    obs, info = env.reset(seed=seed)
    actions: list[Any] = []
    total, ended = 0.0, False
    while not ended and len(actions) < max_steps:
        choice = agent.evaluate(obs, mask_of(info), deterministic=deterministic)
        actions.append(in_its_axes(env, choice.action))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        total, ended = total + float(reward), bool(terminated or truncated)
    return _Flight(seed, tuple(actions), total)


def _frames(env: Environment, flight: _Flight) -> tuple[list["Image.Image"], int]:
    """Pictures of the episode and the time that each is shown, in ms."""
    steps_per_s = float(env.metadata.get("render_fps") or FRAMES_PER_S)
    stride = max(1, round(steps_per_s / FRAMES_PER_S), -(-len(flight.actions) // MAX_FRAMES))
    env.reset(seed=flight.seed)
    frames = []
    for step, action in enumerate(flight.actions):
        if step % stride == 0:
            frames.append(_shot(env))
        env.step(action)
    slowest_ms = 1000 / SLOWEST_PER_S
    return [*frames, _shot(env)], round(min(1000 * stride / steps_per_s, slowest_ms))


def _shot(env: Environment) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415 - an extra

    drawn = env.render()
    if drawn is None:
        raise ConfigError(
            f"{env.spec.id if env.spec else env} draws no pictures (render mode rgb_array)"
        )
    pixels: NDArray[np.uint8] = np.asarray(drawn, dtype=np.uint8)  # [height, width, 3]
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return picture


def _write(frames: list["Image.Image"], path: Path, *, caption: str, frame_ms: int) -> None:
    """Write the film, with fewer frames if it grows too large."""
    while True:
        _save(frames, path, caption=caption, frame_ms=frame_ms)
        if path.stat().st_size <= MAX_BYTES or len(frames) <= 2:  # noqa: PLR2004 - nothing to omit
            return
        frames, frame_ms = [*frames[:-1:2], frames[-1]], frame_ms * 2


def _save(frames: list["Image.Image"], path: Path, *, caption: str, frame_ms: int) -> None:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - an extra

    palette = _common_palette(frames)
    shown = [frame.copy() for frame in frames]
    draw = ImageDraw.Draw(shown[-1])
    draw.text((12, 10), caption, fill="white", font_size=16, stroke_width=2, stroke_fill="black")
    # Without dithering what does not move stays the same from frame to frame, and costs nothing.
    films = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    if path.suffix.lower() == ".webp":
        films = shown
    films[0].save(
        path,
        save_all=True,
        append_images=films[1:],
        duration=[frame_ms] * (len(films) - 1) + [LAST_FRAME_MS],
        loop=0,
        optimize=True,
    )


def _common_palette(frames: list["Image.Image"]) -> "Image.Image":
    """One palette for all frames, from a few of them side by side."""
    from PIL import Image  # noqa: PLC0415 - an extra

    chosen = frames[:: max(len(frames) // 8, 1)]
    width, height = chosen[0].size
    strip = Image.new("RGB", (width * len(chosen), height))
    for place, frame in enumerate(chosen):
        strip.paste(frame, (place * width, 0))
    return strip.quantize(COLORS)
