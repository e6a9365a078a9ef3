"""Takes the wheel, refuses to run without a GPU, and writes gpu.json.

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

from smoke_kit import Subject, load_subject, machine_facts, missing_gpu

CANNOT_RUN = 10  # hopperforge's exit code for a smoke run that failed or found no GPU

SUBJECT = pytest.StashKey[Subject]()
FOLDER = pytest.StashKey[Path]()
SPEEDS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --wheel and --gpu-json."""
    parser.addoption("--wheel", type=Path, help="the flash-attn-fp32 wheel to test; it is unpacked, not installed")
    parser.addoption("--gpu-json", type=Path, help="where to write what was found")


def pytest_configure(config: pytest.Config) -> None:
    """Import the wheel and make sure that a GPU can run it."""
    # Where the kit is run from a checkout, pytest may take that project's settings, which turn warnings into errors;
    # torch's own warnings are not the wheel's.
    config.addinivalue_line("filterwarnings", "default")
    if config.getoption("help"):
        return
    wheel: Path | None = config.getoption("wheel")
    if wheel is None or not wheel.is_file():
        raise pytest.UsageError(f"--wheel must name a wheel file, and is {wheel}")
    folder = Path(tempfile.mkdtemp(prefix="flash-attn-fp32-smoke-"))
    config.stash[FOLDER] = folder
    config.stash[SPEEDS] = []
    try:
        subject = load_subject(wheel.resolve(), folder)
    except (ImportError, BadZipFile) as error:
        pytest.exit(f"the smoke tests cannot run: {wheel.name} does not import: {error}", returncode=CANNOT_RUN)
    config.stash[SUBJECT] = subject
    missing = missing_gpu()
    if missing is not None:
        pytest.exit(f"the smoke tests cannot run here: {missing}", returncode=CANNOT_RUN)
    config.pluginmanager.register(Results(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the unpacked wheel."""
    folder = config.stash.get(FOLDER, None)
    if folder is not None:
        shutil.rmtree(folder)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the wheel and the machine."""
    subject = config.stash.get(SUBJECT, None)
    if subject is None:
        return []
    facts = ", ".join(f"{name} {value}" for name, value in machine_facts().items())
    return [f"wheel: {subject.wheel.name}, profile {subject.build.PROFILE}, CUDA {subject.build.CUDA}", facts]


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
            "profile": subject.build.PROFILE,
            **machine_facts(),
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
def speeds(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """What gpu.json will hold as tflops."""
    return pytestconfig.stash[SPEEDS]
