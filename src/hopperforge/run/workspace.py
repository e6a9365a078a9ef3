"""Where a run keeps its things, and the environment it was started in."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hopperforge.model.place import StorePlace
from hopperforge.report import Reporter

OWN_NAMES: Final = frozenset(
    {"files", "sources", "patched", "toolkits", "torches", "store", "work", "logs", "units", "venvs", "refused"}
    | {"bases", "frameworks", "images", "fingerprints.json", "fingerprints.lock"}
)
"""What hopperforge puts into its cache; a folder that holds anything else is somebody's, and is not removed."""


class Outages:
    """What was found not to answer in this run, so that it is said once and not waited for again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: set[str] = set()

    def known(self, place: str) -> bool:
        """Whether `place` failed to answer before."""
        return place in self._begun

    def begin(self, place: str) -> bool:
        """Note that `place` does not answer; True for the first who says so."""
        with self._lock:
            first = place not in self._begun
            self._begun.add(place)
            return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Folders and the outside world, read once in `cli` and handed down.

    `project` is the checkout (matrix.yaml, recipes/, patches/, flash-attention/); `cache` everything that can be
    fetched or made again; `wheelhouse` finished packages with their records; `environ` the process environment;
    `shared` the object store shared with other machines.
    """

    project: Path
    cache: Path
    wheelhouse: Path
    environ: Mapping[str, str]
    reporter: Reporter
    shared: StorePlace | None = None
    outages: Outages = field(default_factory=Outages, compare=False)

    @property
    def files(self) -> Path:
        """Downloads, each in a folder named by its sha256."""
        return self.cache / "files"

    @property
    def sources(self) -> Path:
        """Verified upstream sources, by pin."""
        return self.cache / "sources"

    @property
    def patched(self) -> Path:
        """Patched sources, by the hash of source and patches."""
        return self.cache / "patched"

    @property
    def toolkits(self) -> Path:
        """Toolkits unpacked from the registry."""
        return self.cache / "toolkits"

    @property
    def torches(self) -> Path:
        """Headers and link libraries of torch, unpacked from its wheels."""
        return self.cache / "torches"

    @property
    def store(self) -> Path:
        """The content-addressed object store: objects, packs, costs."""
        return self.cache / "store"

    @property
    def work(self) -> Path:
        """Folders of work under way; safe to delete when nothing runs."""
        return self.cache / "work"

    @property
    def logs(self) -> Path:
        """Logs of processes, kept after a failure and a success alike."""
        return self.cache / "logs"
