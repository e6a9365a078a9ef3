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

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from smoke_kit import Subject, load_subject, machine_facts, missing_gpu  # noqa: E402

NO_GPU = 10  # hopperforge's exit code for a smoke run that failed or found no GPU

SUBJECT = pytest.StashKey[Subject]()
FOLDER = pytest.StashKey[Path]()
OUTCOMES = pytest.StashKey[dict[str, str]]()
SPEEDS = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --wheel and --gpu-json."""
    parser.addoption("--wheel", type=Path, help="the fa3-fwd wheel to test; it is unpacked, not installed")
    parser.addoption("--gpu-json", type=Path, help="where to write what was found")


def pytest_configure(config: pytest.Config) -> None:
    """Import the wheel and make sure that a GPU can run it."""
    if config.getoption("help"):
        return
    wheel: Path | None = config.getoption("wheel")
    if wheel is None or not wheel.is_file():
        raise pytest.UsageError(f"--wheel must name a wheel file, and is {wheel}")
    folder = Path(tempfile.mkdtemp(prefix="fa3-fwd-smoke-"))
    config.stash[FOLDER] = folder
    config.stash[OUTCOMES] = {}
    config.stash[SPEEDS] = []
    subject = load_subject(wheel.resolve(), folder)
    config.stash[SUBJECT] = subject
    missing = missing_gpu(subject)
    if missing is not None:
        pytest.exit(f"the smoke tests cannot run here: {missing}", returncode=NO_GPU)


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the head dims, dtypes and switches of the profile."""
    subject = metafunc.config.stash[SUBJECT]
    names = metafunc.fixturenames
    if "head_dim" in names:
        between = subject.head_dims[0] - 16  # no kernel of its own: the next larger one serves it
        metafunc.parametrize("head_dim", [between, *subject.head_dims])
    if "dtype" in names:
        metafunc.parametrize("dtype", subject.dtypes, ids=lambda dtype: str(dtype).removeprefix("torch."))
    if "switch" in names:
        metafunc.parametrize("switch", sorted(subject.switches) or ["none"])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep each test's outcome; the worst of its phases counts."""
    outcomes = _Outcomes.current
    if report.failed:
        outcomes[report.nodeid] = "failed"
    elif report.when == "call":
        outcomes.setdefault(report.nodeid, report.outcome)


class _Outcomes:
    """Where the report hook, which is given no config, finds the session's outcomes."""

    current: dict[str, str] = {}  # noqa: RUF012  # replaced at session start


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start with no outcomes."""
    _Outcomes.current = session.config.stash.get(OUTCOMES, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write gpu.json, whole or not at all."""
    target: Path | None = session.config.getoption("gpu_json")
    subject = session.config.stash.get(SUBJECT, None)
    if target is None or subject is None or not _Outcomes.current:
        return
    names = {
        outcome: sorted(name for name, found in _Outcomes.current.items() if found == outcome)
        for outcome in ("passed", "failed")
    }
    result = {
        "wheel": subject.wheel.name,
        "sha256": subject.sha256,
        "profile": subject.build.PROFILE,
        **machine_facts(),
        "passed": len(names["passed"]),
        "failed": len(names["failed"]),
        "tests": names,
        "tflops": session.config.stash[SPEEDS],
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> Subject:
    """The wheel under test."""
    return pytestconfig.stash[SUBJECT]


@pytest.fixture(scope="session")
def speeds(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """What gpu.json will hold as tflops."""
    return pytestconfig.stash[SPEEDS]
