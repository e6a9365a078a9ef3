"""What every kit's tests may ask for by name."""

from __future__ import annotations

from typing import Any

import pytest

SUBJECT = pytest.StashKey[Any]()
SPEEDS = pytest.StashKey["list[dict[str, Any]]"]()


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> Any:
    """The wheel under test: the recipe's own kind of WheelUnderTest."""
    return pytestconfig.stash[SUBJECT]


@pytest.fixture(scope="session")
def speeds(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """What gpu.json will hold as tflops."""
    return pytestconfig.stash[SPEEDS]
