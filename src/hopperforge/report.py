"""What a run tells its reader: live progress on a terminal, plain lines in a pipe, nothing in between.

Only this module and `cli` write to the terminal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a compile: units counted, the names now running, seconds left (None: unknown).

    `memory` is what the running units are expected to need, `in_use` what has been taken of the memory that was
    free when the compile began (see `run.machine.MemoryMeter`; None: unknown, they run elsewhere); both in bytes.
    """

    done: int
    total: int
    running: tuple[str, ...]
    memory: int
    in_use: int | None
    seconds_left: float | None


def gigabytes(size: int) -> str:
    """Write a size in bytes as messages have it."""
    return f"{size / 1e9:.1f} GB"


class Reporter(Protocol):
    """Receives what happens; implementations differ only in how they show it."""

    def stage(self, name: str, detail: str) -> None:
        """Begin a stage of the pipeline: source, patch, toolkit, kernels, front, repair, verify, record."""

    def note(self, text: str) -> None:
        """Say one thing worth keeping."""

    def warn(self, text: str) -> None:
        """Say one thing the user should act on, though the run goes on."""

    def output(self, source: str, line: str) -> None:
        """Pass on a line a process printed; `source` names the process's work."""

    def progress(self, progress: Progress) -> None:
        """Show how far a compile is."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table of results."""

    def close(self) -> None:
        """End any display that moves, so that what is printed next stands below it."""


class Recorder:
    """A reporter that keeps what it is told, for tests and for reports written later."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lines: list[tuple[str, str]] = []
        self.moments: list[Progress] = []
        self.tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = []

    def stage(self, name: str, detail: str) -> None:
        """Keep a stage."""
        self.stages.append((name, detail))

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)

    def output(self, source: str, line: str) -> None:
        """Keep a line of a process."""
        self.lines.append((source, line))

    def progress(self, progress: Progress) -> None:
        """Keep a moment."""
        self.moments.append(progress)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Keep a table."""
        self.tables.append((title, columns, rows))

    def close(self) -> None:
        """Nothing moves here."""


class WarningsOnly(Recorder):
    """A reporter that passes warnings on and keeps the rest to itself: for looking without doing."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def warn(self, text: str) -> None:
        """Pass a warning on."""
        self._reporter.warn(text)
