"""Flags and guards of the test suite.

Unit and contract tests may not reach the network: a connection they open fails the test. Integration tests run
only with --integration, which the README's test command gives.
"""

import os
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from hopperforge.config.project import Project, load_project

PROJECT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --integration."""
    parser.addoption("--integration", action="store_true", help="also run tests on real input: network, compilers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave integration tests out unless asked for, visibly: they count as deselected, never as skipped."""
    if config.getoption("--integration"):
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run the integration tests too: pytest --integration")
    real = [item for item in items if item.get_closest_marker("integration")]
    if real:
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if item not in real]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run that skipped a test: what CI's machine cannot run does not belong into the suite."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") == "true":
        print(f"\nCI skipped {len(skipped)} tests; each must run or go")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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


@pytest.fixture(scope="session")
def facts(project_root: Path) -> Project:
    """The repository's own project."""
    return load_project(project_root)
