"""Puts the package before the tests: the wheel's, or that of the checkout the kit lies in.

The tests run on a GPU if torch finds one, else on the CPU: both are machines that the package is for.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

_UNPACKED = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --wheel."""
    parser.addoption("--wheel", type=Path, help="the wheel to test; it is unpacked, not installed")


def pytest_configure(config: pytest.Config) -> None:
    """Find the package."""
    # Where the kit is run from a checkout, pytest may take that project's settings, which turn warnings into errors;
    # torch's own warnings are not the package's.
    config.addinivalue_line("filterwarnings", "default")
    wheel: Path | None = config.getoption("--wheel")
    folder = Path(__file__).parents[1] / "python"
    if wheel is not None:
        unpacked = tempfile.TemporaryDirectory(prefix="hopper-attention-smoke-")
        config.stash[_UNPACKED] = unpacked
        folder = Path(unpacked.name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)  # tensors are tiny, and threads would wait for each other


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was unpacked."""
    unpacked = config.stash.get(_UNPACKED, None)
    if unpacked is not None:
        unpacked.cleanup()


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tests run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers every run, and no backend named by the environment."""
    torch.manual_seed(7)
    monkeypatch.delenv("HOPPER_ATTENTION_BACKEND", raising=False)
