"""Reporters that show: a live display on a terminal, plain lines in a pipe or a CI log."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hopperforge.report import Progress, Reporter

_GIB = 2**30
_NAMES_SHOWN = 3
_QUIET_SECONDS = 30.0


def make_reporter(stream: TextIO, *, verbose: bool) -> Reporter:
    """Choose the reporter that fits `stream`."""
    return (
        LiveReporter(Console(file=stream), verbose=verbose)
        if stream.isatty()
        else PlainReporter(stream, verbose=verbose)
    )


def describe(progress: Progress) -> str:
    """Say a moment of a compile in one line: units, what runs, memory reserved, time left."""
    running = ", ".join(progress.running[:_NAMES_SHOWN])
    if len(progress.running) > _NAMES_SHOWN:
        running += f" and {len(progress.running) - _NAMES_SHOWN} more"
    parts = [f"{progress.done}/{progress.total} units"]
    if running:
        parts.append(f"compiling {running}")
        reserved = f"{progress.memory / _GIB:.1f}"
        in_use = progress.in_use
        parts.append(
            f"{reserved} GiB reserved" if in_use is None else f"{in_use / _GIB:.1f} GiB in use, {reserved} reserved"
        )
    if progress.seconds_left is not None:
        parts.append(f"about {duration(progress.seconds_left)} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Write a duration as people say it: 45 s, 3 min 20 s, 1 h 5 min."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay a table out in plain text, columns as wide as their widest cell."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


class PlainReporter:
    """Lines without colour or motion, each flushed, so that a log shows what happens while it happens."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._said: tuple[int, tuple[str, ...]] | None = None
        self._said_at = 0.0

    def stage(self, name: str, detail: str) -> None:
        """Print the stage's name and detail."""
        self._print(f"{name:<9} {detail}")

    def note(self, text: str) -> None:
        """Print a note under the stage."""
        self._print(f"          {text}")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(f"warning: {text}")

    def output(self, source: str, line: str) -> None:
        """Print a process's line if everything was asked for; it is in the log anyway."""
        if self._verbose:
            self._print(f"{source}: {line}")

    def progress(self, progress: Progress) -> None:
        """Print a moment when a unit started or ended, and else every half minute."""
        now = time.monotonic()
        if (progress.done, progress.running) != self._said or now - self._said_at >= _QUIET_SECONDS:
            self._said, self._said_at = (progress.done, progress.running), now
            self.note(describe(progress))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print an aligned table."""
        self._print("")
        self._print(title)
        for line in grid(columns, rows):
            self._print(line)

    def close(self) -> None:
        """Nothing moves here."""

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveReporter:
    """Stages and notes that stay, and below them one line that moves while units compile."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._live: Live | None = None
        self._moment: Progress | None = None
        self._since = 0.0

    def stage(self, name: str, detail: str) -> None:
        """Print the stage's name and detail; a stage ends the display of the one before."""
        self._end_live()
        self._console.print(Text.assemble((f"{name:<9} ", "bold cyan"), detail))

    def note(self, text: str) -> None:
        """Print a note under the stage."""
        self._console.print(Text(f"          {text}"))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._console.print(Text.assemble(("warning: ", "bold yellow"), text))

    def output(self, source: str, line: str) -> None:
        """Print a process's line if everything was asked for; it is in the log anyway."""
        if self._verbose:
            self._console.print(Text(f"{source}: {line}", style="dim"))

    def progress(self, progress: Progress) -> None:
        """Move the line below; it counts time by itself between two moments."""
        self._moment = progress
        if self._live is None:
            self._since = time.monotonic()
            self._live = Live(console=self._console, get_renderable=self._line, refresh_per_second=2, transient=True)
            self._live.start(refresh=True)
        if progress.done == progress.total:
            self._end_live()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with ruled columns."""
        self._end_live()
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)

    def close(self) -> None:
        """End the live line and give the terminal its cursor back."""
        self._end_live()

    def _line(self) -> Text:
        moment = self._moment
        if moment is None:
            return Text("")
        return Text(f"          {describe(moment)} · {duration(time.monotonic() - self._since)} so far")

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def standard_reporter(*, verbose: bool) -> Reporter:
    """Report on standard error, so that standard output carries answers alone."""
    return make_reporter(sys.stderr, verbose=verbose)
