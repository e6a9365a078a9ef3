"""Publishers as processes of their own, killed or many at once; a program for tests, quick since it forks.

It forks before any store is open: publishers.py killed|together PLACE WHEELHOUSE PROJECT
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from hopperforge.config.project import load_project
from hopperforge.model.place import StorePlace
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.parcels import from_wheelhouse
from hopperforge.stages.publish import Parcel, publish
from hopperforge.store.targets import Held, Mark, Target, open_target
from hopperforge.store.wheelhouse import Wheelhouse

MOMENT = "2026-11-22T08:30:15+00:00"


class Mortal:
    """A target whose publisher is killed by the system before it writes once more."""

    def __init__(self, target: Target, writes: int) -> None:
        self._target = target
        self._left = writes
        self._lock = threading.Lock()
        self.place = target.place

    def exclusive(self) -> AbstractContextManager[None]:
        """As the target does."""
        return self._target.exclusive()

    def mark(self, name: str) -> Mark | None:
        """As the target does."""
        return self._target.mark(name)

    def fetch(self, name: str) -> Held | None:
        """As the target does."""
        return self._target.fetch(name)

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """As the target does."""
        return self._target.holds(name, mark, data)

    def create(self, name: str, data: bytes) -> bool:
        """As the target does, while there is a life left."""
        with self._lock:
            self._spend()
            return self._target.create(name, data)

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """As the target does, while there is a life left."""
        with self._lock:
            self._spend()
            return self._target.replace(name, data, seen)

    def _spend(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def forked(work: Callable[[], None]) -> int:
    """Start `work` in a process of its own, and give its id."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def killed(place: str, parcels: list[Parcel], workspace: Workspace) -> None:
    """Kill a publisher of the last parcel before each of its writes, each in a place of its own; print how many."""
    writes = 0

    def work() -> None:
        target = open_target(StorePlace.parse(f"{place}/{writes}"), workspace)
        publish(target, parcels[:-1])
        publish(Mortal(target, writes), parcels[-1:])

    while os.WIFSIGNALED(os.waitpid(forked(work), 0)[1]):
        writes += 1
    print(writes)  # noqa: T201


def together(place: str, parcels: list[Parcel], workspace: Workspace) -> None:
    """Publish each parcel from a process of its own, all at the same time; print how many ended well."""

    def work(parcel: Parcel) -> None:
        publish(open_target(StorePlace.parse(place), workspace), [parcel])

    children = [forked(lambda parcel=parcel: work(parcel)) for parcel in parcels]  # type: ignore[misc]
    print(sum(os.waitpid(child, 0)[1] == 0 for child in children))  # noqa: T201


def main() -> None:
    """Do what the words say."""
    mode, place, house, project = sys.argv[1:]
    wheelhouse = Path(house)
    workspace = Workspace(
        project=Path(project),
        cache=wheelhouse,
        wheelhouse=wheelhouse,
        environ=dict(os.environ),
        reporter=Recorder(),
    )
    facts = load_project(workspace.project)
    packages = Wheelhouse(wheelhouse, workspace.reporter).packages()
    parcels = [from_wheelhouse(package, facts, MOMENT).parcel for package in packages]
    {"killed": killed, "together": together}[mode](place, [parcel for parcel in parcels if parcel], workspace)


if __name__ == "__main__":
    main()
