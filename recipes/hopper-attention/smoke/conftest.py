"""What is hopper-attention's own in a session of smoke tests; the rest is `smoke_common`'s.

With --wheel the wheel is proven on a GPU. Without, the package is that of the checkout the kit lies in, and the CPU
will do: both are machines that it is for.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECIPES = HERE.parent.parent
if not (RECIPES / "smoke_common").is_dir():
    raise ImportError(f"there is no {RECIPES / 'smoke_common'}: copy the whole folder recipes/, not {HERE} alone")
sys.path[:0] = [str(HERE), str(RECIPES)]

import torch
from smoke_common import session
from smoke_kit import load_subject, machine_facts, missing_gpu

FEW = 12
"""Tests of no more cases are run whole, whatever --every says."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what all kits have, and --every for machines that are slow."""
    session.pytest_addoption(parser)
    parser.addoption("--every", type=int, default=1, help="of a test's many cases run each N-th alone")


def pytest_configure(config: pytest.Config) -> None:
    """Find the package."""
    torch.set_num_threads(1)  # tensors are tiny, and threads would wait for each other
    if config.getoption("wheel") is not None:
        session.begin(config, session.Kit(HERE, load_subject, missing_gpu, machine_facts))
        return
    config.addinivalue_line("filterwarnings", "default")  # as `begin` does
    sys.path.insert(0, str(HERE.parent / "python"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep each N-th case of a test; where N shares no factor with the parameters' numbers, all values come up."""
    every, cases = config.getoption("every"), defaultdict[str, list[pytest.Item]](list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    left_out = {item for found in cases.values() if len(found) > FEW for item in found if found.index(item) % every}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tests run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers every run, and no backend named by the environment."""
    torch.manual_seed(7)
    monkeypatch.delenv("HOPPER_ATTENTION_BACKEND", raising=False)
