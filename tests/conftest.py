"""Flags and guards of the test suite.

Unit and contract tests may not reach the network: a connection they open fails the test. Integration tests run
only with --integration, which the README's test command gives.
"""

import socket
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --integration."""
    parser.addoption("--integration", action="store_true", help="also run tests on real input: network, compilers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave integration tests out unless asked for, visibly: they count as deselected, never as skipped."""
    if config.getoption("--integration"):
        return
    real = [item for item in items if item.get_closest_marker("integration")]
    if real:
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if item not in real]


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a unit or contract test that opens a connection."""
    if not request.node.get_closest_marker("integration"):

        def refuse(*_: object) -> NoReturn:
            pytest.fail("a unit test opened a network connection")

        monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the checkout's root."""
    return PROJECT
