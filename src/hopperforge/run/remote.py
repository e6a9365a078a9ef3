"""The world of a process that others started for us, such as a worker of a cluster: its environment and its cache."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from hopperforge.report import Reporter
from hopperforge.run.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where a worker keeps its things, and the environment it was started in."""

    cache: Path
    environ: Mapping[str, str]

    def workspace(self, reporter: Reporter) -> Workspace:
        """Give its workspace; a worker has no checkout and keeps no packages, so these folders are never made."""
        return Workspace(
            project=self.cache / "none",
            cache=self.cache,
            wheelhouse=self.cache / "none",
            environ=self.environ,
            reporter=reporter,
        )


def worker_home() -> Home:
    """Read this process's environment; its cache is a folder of its own in the user's, for both may be on one disk."""
    cache = os.environ.get("HOPPERFORGE_CACHE") or platformdirs.user_cache_dir("hopperforge")
    return Home(cache=Path(cache).absolute() / "worker", environ=dict(os.environ))
