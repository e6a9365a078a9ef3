"""Takes the wheel, refuses to run without a GPU, spreads the tests over the profile, and writes gpu.json.

Nothing is ever skipped here: a test that could not run must not look like one that passed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from refusals import good_forward
from smoke_kit import Driver, Subject, load_subject, machine_facts

CANNOT_RUN = 10  # hopperforge's exit code for a smoke run that failed or found no GPU

SUBJECT = pytest.StashKey[Subject]()
DRIVER = pytest.StashKey[Driver]()
FOLDER = pytest.StashKey[Path]()
SPEEDS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --wheel and --gpu-json."""
    parser.addoption("--wheel", type=Path, help="the hopperforge_fa3 wheel to test; it is unpacked, not installed")
    parser.addoption("--gpu-json", type=Path, help="where to write what was found")


def pytest_configure(config: pytest.Config) -> None:
    """Unpack the wheel and make sure that a GPU can run it."""
    config.addinivalue_line("markers", "needs(*features): left out where the profile trimmed one of them")
    if config.getoption("help"):
        return
    wheel: Path | None = config.getoption("wheel")
    if wheel is None or not wheel.is_file():
        raise pytest.UsageError(f"--wheel must name a wheel file, and is {wheel}")
    folder = Path(tempfile.mkdtemp(prefix="fa3-cpp-smoke-"))
    config.stash[FOLDER] = folder
    config.stash[SPEEDS] = []
    try:
        subject = load_subject(wheel.resolve(), folder)
    except (OSError, BadZipFile) as error:
        pytest.exit(f"the smoke tests cannot run: {wheel.name} does not load: {error}", returncode=CANNOT_RUN)
    config.stash[SUBJECT] = subject
    try:
        config.stash[DRIVER] = Driver()
    except OSError as error:
        pytest.exit(f"the smoke tests cannot run here: no GPU: {error}", returncode=CANNOT_RUN)
    status, _ = subject.library.workspace(good_forward(subject.library, subject.head_dims[0]))
    if status:
        pytest.exit(f"the smoke tests cannot run here: {subject.library.message}", returncode=CANNOT_RUN)
    config.pluginmanager.register(Results(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the unpacked wheel."""
    folder = config.stash.get(FOLDER, None)
    if folder is not None:
        shutil.rmtree(folder)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the wheel and the machine."""
    subject = config.stash.get(SUBJECT, None)
    driver = config.stash.get(DRIVER, None)
    if subject is None or driver is None:
        return []
    facts = ", ".join(f"{name} {value}" for name, value in machine_facts(subject, driver).items())
    return [f"wheel: {subject.wheel.name}, profile {subject.profile}", facts]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the head dims and dtypes of the profile."""
    subject = metafunc.config.stash[SUBJECT]
    if "head_dim" in metafunc.fixturenames:
        between = subject.head_dims[0] - 16  # no kernel of its own: the next larger one serves it
        metafunc.parametrize("head_dim", [between, *subject.head_dims])
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", subject.dtypes)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of features the profile trimmed, visibly; test_errors proves that those are refused."""
    subject = config.stash[SUBJECT]
    served: list[pytest.Item] = []
    trimmed: list[pytest.Item] = []
    for item in items:
        needed = [feature for marker in item.iter_markers("needs") for feature in marker.args]
        (served if all(map(subject.has, needed)) else trimmed).append(item)
    if trimmed:
        config.hook.pytest_deselected(items=trimmed)
        items[:] = served


class Results:
    """Keeps the outcome of each test, and writes them as gpu.json when the session ends."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep an outcome; a failure in any phase counts."""
        name = report.nodeid.rpartition("/")[2]
        if report.failed:
            self.outcomes[name] = "failed"
        elif report.when == "call":
            self.outcomes.setdefault(name, report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write gpu.json, whole or not at all, if a test ran."""
        target: Path | None = self.config.getoption("gpu_json")
        if target is None or not self.outcomes:
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(self.summary(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def complete(self) -> bool:
        """Whether the whole kit was asked for: a part of it proves nothing about the wheel."""
        chosen = self.config.getoption("keyword") or self.config.getoption("markexpr")
        return not chosen and [Path(arg).resolve() for arg in self.config.args] == [Path(__file__).parent]

    def summary(self) -> dict[str, Any]:
        """What gpu.json holds."""
        subject = self.config.stash[SUBJECT]
        names = {
            outcome: sorted(name for name, found in self.outcomes.items() if found == outcome)
            for outcome in ("passed", "failed")
        }
        return {
            "wheel": subject.wheel.name,
            "sha256": subject.sha256,
            "profile": subject.profile,
            **machine_facts(subject, self.config.stash[DRIVER]),
            "passed": len(names["passed"]),
            "failed": len(names["failed"]),
            "complete": self.complete(),
            "tests": names,
            "tflops": self.config.stash[SPEEDS],
        }


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> Subject:
    """The wheel under test."""
    return pytestconfig.stash[SUBJECT]


@pytest.fixture(scope="session")
def driver(pytestconfig: pytest.Config) -> Driver:
    """The GPU's driver."""
    return pytestconfig.stash[DRIVER]


@pytest.fixture(scope="session")
def speeds(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """What gpu.json will hold as tflops."""
    return pytestconfig.stash[SPEEDS]
