"""TensorBoard logs of a run: the applications' returns, and what the worker measured."""

from pathlib import Path

from tensorboardX import SummaryWriter

from rl4sys_stream.cli.demo.progress import Progress

__all__ = ["Board"]


class Board:
    """Writes what is new in a `Progress`; the axis is environment steps throughout."""

    def __init__(self, path: Path) -> None:
        """Write into the folder `path`."""
        self._writer = SummaryWriter(str(path), flush_secs=5)
        self._episodes = 0
        self._versions = 0

    def update(self, progress: Progress) -> None:
        """Append the episodes and versions since the last call."""
        for episode in progress.episodes[self._episodes :]:
            self._add("application/ep_rew", episode.total, episode.steps)
            self._add("application/ep_len", episode.length, episode.steps)
            self._add("application/ep_rew_mean", episode.mean, episode.steps)
        self._episodes = len(progress.episodes)
        for version in progress.versions[self._versions :]:
            self._add("policy/version", version.version, version.trained_steps)
            for name, value in version.metrics.items():
                self._add(name, value, version.trained_steps)
        self._versions = len(progress.versions)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
