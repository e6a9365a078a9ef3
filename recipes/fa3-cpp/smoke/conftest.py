"""What is fa3-cpp's own in a session of smoke tests; the rest is `smoke_common`'s."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECIPES = HERE.parent.parent
if not (RECIPES / "smoke_common").is_dir():
    raise ImportError(f"there is no {RECIPES / 'smoke_common'}: copy the whole folder recipes/, not {HERE} alone")
sys.path[:0] = [str(HERE), str(RECIPES)]

from smoke_common.session import Kit, begin, pytest_addoption  # noqa: F401  # a hook: pytest looks for it here
from smoke_kit import Driver, Subject, load_subject, machine_facts, missing_gpu, open_driver


def pytest_configure(config: pytest.Config) -> None:
    """Load the library and make sure that a GPU can run it."""
    begin(config, Kit(HERE, load_subject, missing_gpu, machine_facts, parameters=Subject.spread))


@pytest.fixture(scope="session")
def driver() -> Driver:
    """The GPU's driver."""
    return open_driver()
