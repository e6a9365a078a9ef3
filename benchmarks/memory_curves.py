"""What each compile holds over time, beside what is set aside for it: whether the model of `store.costs` is true.

    python -m benchmarks.inline_vs_pack --units units.json --out figures --way pack     # writes figures/curves.jsonl
    python -m benchmarks.memory_curves figures/curves.jsonl

A row is a unit: its wall seconds and those expected, the most GB its processes held together, and as shares of what was
expected of its peak the most before its peak is taken to be over and the most after; where the first units to end show
the machine to be slow, the executor takes it to be over later than that. A star marks a unit that held more at an age
than is set aside for it then; the exit status is 1 if there is one.

Every two seconds the resident bytes of a compile's processes are added up, so pages they share count twice and what is
held for less may be missed. Nothing else may compile the same units on the machine meanwhile: it would be added.
"""

import argparse
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import TypeAdapter

from hopperforge.executors.schedule import LEAST_PACE
from hopperforge.model.pack import Cost, Unit
from hopperforge.run.files import write_atomic
from hopperforge.store.costs import calm_of

LOOK_SECONDS: Final = 2.0
MARK: Final = "--orig_src_path_name=/hopperforge/"
COLUMNS: Final = f"{'s':>7}{'expected':>9}{'GB':>7}{'early':>7}{'late':>7}  unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What was expected of a unit, and moments of it: seconds since it was first seen, and bytes held."""

    unit: str
    seconds: float
    peak: int
    after: float | None
    later: int | None
    moments: tuple[tuple[float, int], ...]

    @property
    def calm_at(self) -> float:
        """The age at which its peak is taken to be over, where nothing has shown the machine to be slower."""
        return float("inf") if self.after is None else LEAST_PACE * self.after

    @property
    def early(self) -> int:
        """The most bytes before that."""
        return max((held for age, held in self.moments if age < self.calm_at), default=0)

    @property
    def late(self) -> int:
        """The most bytes from then on."""
        return max((held for age, held in self.moments if age >= self.calm_at), default=0)

    @property
    def within(self) -> bool:
        """Whether it held no more than was set aside."""
        return self.early <= self.peak and self.late <= (self.peak if self.later is None else self.later)

    def __str__(self) -> str:
        """As the table has it; * where more was held than set aside."""
        lasted = self.moments[-1][0] if self.moments else 0.0
        most = max(self.early, self.late) / 1e9
        shares = f"{self.early / self.peak:>7.2f}{self.late / self.peak:>7.2f}"
        return f"{lasted:>7.0f}{self.seconds:>9.0f}{most:>7.2f}{shares}{' ' if self.within else '*'} {self.unit}"


_CURVE: Final = TypeAdapter(Curve)


@dataclass(slots=True, kw_only=True)
class Sampler:
    """A thread that samples what every compile on the machine holds, by the path of its unit.

    Two of one unit at a time, by whomever they were started, are taken for one.
    """

    proc: Path = Path("/proc")
    seen: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.over.set()
        if self.thread is not None:
            self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Take one sample."""
        for unit, held in held_by_unit(self.proc).items():
            begun = self.begun.setdefault(unit, now)
            self.seen[unit].append((round(now - begun, 1), held))


def held_by_unit(proc: Path) -> dict[str, int]:
    """Sum the resident bytes of processes by session, of those whose leader is told the path of a unit."""
    sessions: dict[int, int] = defaultdict(int)
    for name in os.listdir(proc):  # noqa: PTH208 - an iterator would be left open by an interrupt
        if name.isdigit():
            session, held = _session_and_size(proc / name)
            sessions[session] += held
    found = {_unit_of(proc / str(session)): held for session, held in sessions.items()}
    return {unit: held for unit, held in found.items() if unit is not None}


def _session_and_size(folder: Path) -> tuple[int, int]:
    try:
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return 0, 0
    return int(fields[3]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _unit_of(folder: Path) -> str | None:
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((word.removeprefix(MARK) for word in words if word.startswith(MARK)), None)


def curve(unit: Unit, cost: Cost, moments: Sequence[tuple[float, int]]) -> Curve:
    """Put what was seen of a unit beside what was expected of it."""
    calm = calm_of(unit, cost)
    after, later = (None, None) if calm is None else (calm.after, calm.rss)
    return Curve(
        unit=unit.path, seconds=cost.seconds, peak=cost.peak_rss, after=after, later=later, moments=tuple(moments)
    )


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write curves, one a line."""
    write_atomic(path, b"".join(_CURVE.dump_json(each) + b"\n" for each in curves))


def read_curves(path: Path) -> list[Curve]:
    """Read them again."""
    return [_CURVE.validate_json(line) for line in path.read_text("utf-8").splitlines()]


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare what compiles held with what was set aside for them.")
    parser.add_argument("curves", type=Path, help="the file that inline_vs_pack wrote")
    curves = read_curves(parser.parse_args(arguments).curves)
    if not any(each.moments for each in curves):
        raise SystemExit("error: the file shows no compile at any moment, so that nothing can be said of them")
    print(COLUMNS)
    for each in sorted(curves, key=lambda each: (each.within, each.unit)):
        print(each)
    above = sum(not each.within for each in curves)
    print(f"{above} of {len(curves)} units held more than was set aside for them at that age")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
