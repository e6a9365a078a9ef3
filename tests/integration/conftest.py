"""What several modules of integration tests share: folders, and an S3 server.

What they fetch is large, and a disk that fills up fails tests that are right.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.command import MakeHome
from tests.integration.s3_server import S3Server, running_s3


@pytest.fixture(scope="session")
def venvs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Where every home keeps its venvs: a real torch has 5 GB, and modules that import beside the same one share it."""
    folder = tmp_path_factory.mktemp("venvs")
    # at the very end, for removing so much can take longer than the last test has
    pytestconfig.add_cleanup(lambda: shutil.rmtree(folder) if folder.exists() else None)
    return folder


@pytest.fixture(scope="module")
def make_home(tmp_path_factory: pytest.TempPathFactory, venvs: Path) -> Iterator[MakeHome]:
    """Make folders for `hopperforge(..., home=...)`; with their module their caches go, but for the logs."""
    made = []

    def make(name: str) -> Path:
        home = tmp_path_factory.mktemp(name)
        (home / "cache").mkdir()
        (home / "cache" / "venvs").symlink_to(venvs)
        made.append(home)
        return home

    yield make
    for path in (path for home in made for path in (home / "cache").glob("*") if path.name != "logs"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server for all; each module has a bucket of its own on it."""
    with running_s3() as running:
        yield running
