"""What is fa3-jax's own in a session of smoke tests; the rest is `smoke_common`'s."""

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
from smoke_kit import Subject, has_devices_for, load_subject, machine_facts, missing_gpu


def pytest_configure(config: pytest.Config) -> None:
    """Import the wheel and make sure that a GPU can run it."""
    config.addinivalue_line("markers", "devices(count): left out where JAX finds fewer GPUs")
    begin(
        config,
        Kit(HERE, load_subject, missing_gpu, machine_facts, parameters=Subject.spread, serves=has_devices_for),
    )
