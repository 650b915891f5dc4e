"""What one sees while the demo runs: a live panel on a terminal, lines elsewhere."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl4sys_stream.cli.demo.progress import WINDOW, Progress
from rl4sys_stream.cli.demo.settings import DemoSettings
from rl4sys_stream.cli.demo.task import Task
from rl4sys_stream.clock import Clock

__all__ = ["Display", "LiveDisplay", "PlainDisplay", "make_display", "shown", "sparkline"]

WIDTH: Final = 84
BLOCKS: Final = "▁▂▃▄▅▆▇█"
SPARK_WIDTH: Final = 48
PLAIN_INTERVAL_S: Final = 5.0
LIVE_INTERVAL_S: Final = 0.2
LARGE_RETURN: Final = 10.0
"""From here on one decimal is enough."""


class Display(Protocol):
    """Shows progress between `__enter__` and `__exit__`."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        ...

    def update(self, progress: Progress) -> None:
        """Show `progress`; called often, cheap if it is not time yet."""
        ...


def make_display(task: Task, settings: DemoSettings, clock: Clock) -> Display:
    """The live panel on a terminal that can show it, lines otherwise."""
    console = Console(highlight=False)
    if settings.plain or not console.is_terminal or console.is_dumb_terminal:
        return PlainDisplay(task, clock)
    return LiveDisplay(task, settings, clock, console)


def shown(value: float) -> str:
    """A return with as many decimals as tell it from its neighbours."""
    return f"{value:.1f}" if abs(value) >= LARGE_RETURN else f"{value:.3f}"


def sparkline(values: Sequence[float], *, width: int = SPARK_WIDTH) -> str:
    """`values` as blocks, at most `width` of them, from the lowest to the highest."""
    if not values:
        return ""
    count = min(width, len(values))
    shown = [values[(place + 1) * len(values) // count - 1] for place in range(count)]
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in shown)


class PlainDisplay:
    """A line every few seconds, and at each change of phase."""

    def __init__(self, task: Task, clock: Clock) -> None:
        """Print to standard output."""
        self._task = task
        self._clock = clock
        self._phase = ""
        self._trouble = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to clean up."""

    def update(self, progress: Progress) -> None:
        """See `Display.update`."""
        now = self._clock.monotonic()
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._print(f"phase: {progress.phase}")
            self._next = now + PLAIN_INTERVAL_S
        if progress.trouble != self._trouble:
            self._trouble = progress.trouble
            self._print(f"trouble: {progress.trouble or 'over'}")
        if now >= self._next and progress.episodes:
            self._next = now + PLAIN_INTERVAL_S
            self._print(self._line(progress, now))

    def _line(self, progress: Progress, now: float) -> str:
        mean, target = progress.mean_return, self._task.target
        return (
            f"steps={progress.steps} episodes={len(progress.episodes)} "
            f"mean_return={mean if mean is None else shown(mean)} "
            f"target={target if target is None else format(target, 'g')} "
            f"steps_per_s={progress.steps_per_s(now):.0f} "
            f"version={progress.version} policy_lag={progress.lag:.2f} "
            f"backlog={progress.backlog} trained={progress.trained_share:.1%}"
        )

    def _print(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class LiveDisplay:
    """A panel that is drawn anew a few times a second."""

    def __init__(self, task: Task, settings: DemoSettings, clock: Clock, console: Console) -> None:
        """Draw on `console`."""
        self._task = task
        self._settings = settings
        self._clock = clock
        self._console = console
        self._began = clock.monotonic()
        self._next = 0.0
        self._phase = ""
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        """Take over the lower part of the terminal."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last panel standing."""
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """See `Display.update`."""
        now = self._clock.monotonic()
        if now >= self._next or progress.phase != self._phase:
            self._next, self._phase = now + LIVE_INTERVAL_S, progress.phase
            self._live.update(self._panel(progress, now), refresh=True)

    def _panel(self, progress: Progress, now: float) -> Panel:
        settings = self._settings
        rows = Table.grid(padding=(0, 2), expand=True)
        rows.add_column(style="dim", width=12, no_wrap=True)
        rows.add_column(ratio=1)
        rows.add_row("return", self._return_line(progress))
        rows.add_row("", Text(sparkline([e.mean for e in progress.episodes]), style="cyan"))
        rows.add_row("episodes", f"{len(progress.episodes):,}")
        rows.add_row("env steps", self._steps_line(progress, now))
        rows.add_row("model", f"version {progress.version}   policy lag {progress.lag:.1f}")
        rows.add_row(
            "stream",
            f"backlog {progress.backlog}   trained on {progress.trained_share:.1%}",
        )
        minutes, seconds = divmod(int(now - self._began), 60)
        foot = Text(f"{minutes}:{seconds:02d}  {progress.phase}", style="dim")
        if progress.trouble:
            foot = Text(progress.trouble, style="bold red")
        return Panel(
            Group(rows, Text(), foot),
            title=(
                f"[bold]{self._task.environment}[/]  {self._task.algorithm} over Redis streams  "
                f"seed {settings.seed}"
            ),
            title_align="left",
            border_style="blue",
            padding=(1, 2),
            width=min(WIDTH, self._console.width),
        )

    def _return_line(self, progress: Progress) -> Table:
        mean, target = progress.mean_return, self._task.target
        line = Table.grid(padding=(0, 2))
        count = min(len(progress.episodes), WINDOW)
        text = Text(("waiting" if mean is None else shown(mean)).rjust(7), style="bold")
        if target is None:
            line.add_row(text, Text(f"mean of {count}", style="dim"))
            return line
        start = min([target - 1.0, *(episode.mean for episode in progress.episodes[:WINDOW])])
        share = 0.0 if mean is None else (mean - start) / (target - start)
        bar = ProgressBar(total=1.0, completed=min(max(share, 0.0), 1.0), width=28)
        line.add_row(text, bar, Text(f"mean of {count}, target {target:g}", style="dim"))
        return line

    def _steps_line(self, progress: Progress, now: float) -> str:
        return (
            f"{progress.steps:,} of {self._task.max_steps:,}   {progress.steps_per_s(now):,.0f}/s"
        )
