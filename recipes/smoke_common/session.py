"""One pytest session, one wheel: takes it, refuses to run without a GPU, spreads the tests, and writes gpu.json.

Nothing is ever skipped here: a test that could not run must not look like one that passed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import pytest

from smoke_common import fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoke_common.wheel import WheelUnderTest

CANNOT_RUN = 10  # hopperforge's exit code for a smoke run that failed or found no GPU


def all_served(_: pytest.Item) -> bool:
    """No machine is too small."""
    return True


def no_parameters(_: Any) -> Mapping[str, Sequence[Any]]:
    """The tests say themselves what they are spread over."""
    return {}


@dataclass(frozen=True)
class Kit:
    """What is one recipe's own: its smoke folder, and how its wheel is loaded and looked at.

    | field      | takes                          | gives                                                      |
    |------------|--------------------------------|------------------------------------------------------------|
    | load       | the wheel, a folder to unpack  | the subject; ImportError, OSError, BadZipFile if it cannot |
    | obstacle   | the subject                    | why its kernels cannot run here, None where they can       |
    | facts      | the subject                    | the machine, as gpu.json names it                          |
    | parameters | the subject                    | values of test arguments, by name                          |
    | serves     | a test                         | whether this machine is large enough for it                |
    """

    folder: Path
    load: Callable[[Path, Path], Any]
    obstacle: Callable[[Any], str | None]
    facts: Callable[[Any], Mapping[str, str]]
    parameters: Callable[[Any], Mapping[str, Sequence[Any]]] = no_parameters
    serves: Callable[[pytest.Item], bool] = all_served


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --wheel and --gpu-json."""
    parser.addoption("--wheel", type=Path, help="the wheel to test; it is unpacked, not installed")
    parser.addoption("--gpu-json", type=Path, help="where to write what was found")


def begin(config: pytest.Config, kit: Kit) -> None:
    """Load the wheel and make sure that a GPU can run it, or end the session with one sentence."""
    # Where a kit is run from a checkout, pytest may take that project's settings, which turn warnings into errors; a
    # framework's own warnings are not the wheel's.
    config.addinivalue_line("filterwarnings", "default")
    config.addinivalue_line("markers", "needs(*features): left out where the profile trimmed one of them")
    if config.getoption("help"):
        return
    wheel, target = _arguments(config)
    folder = Path(tempfile.mkdtemp(prefix=f"{kit.folder.parent.name}-smoke-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    try:
        subject = kit.load(wheel, folder)
    except (ImportError, OSError, BadZipFile) as error:
        pytest.exit(f"the smoke tests cannot run: {wheel.name} does not load: {error}", returncode=CANNOT_RUN)
    obstacle = kit.obstacle(subject)
    if obstacle is not None:
        pytest.exit(f"the smoke tests cannot run here: {obstacle}", returncode=CANNOT_RUN)
    config.stash[fixtures.SUBJECT] = subject
    config.stash[fixtures.SPEEDS] = []
    config.pluginmanager.register(fixtures)
    config.pluginmanager.register(SmokeSession(config, kit, subject, target))


def _arguments(config: pytest.Config) -> tuple[Path, Path | None]:
    """The wheel and the place of gpu.json, both looked at before minutes of tests."""
    wheel: Path | None = config.getoption("wheel")
    if wheel is None or not wheel.is_file():
        raise pytest.UsageError(f"--wheel must name a wheel file, and is {wheel}")
    target: Path | None = config.getoption("gpu_json")
    if target is not None and not target.absolute().parent.is_dir():
        raise pytest.UsageError(f"--gpu-json is {target}, and that folder does not exist")
    return wheel.resolve(), target


class SmokeSession:
    """The hooks of a session that can run; keeps the outcome of each test."""

    def __init__(self, config: pytest.Config, kit: Kit, subject: WheelUnderTest, target: Path | None) -> None:
        self._config = config
        self._kit = kit
        self._subject = subject
        self._facts = kit.facts(subject)
        self._target = target
        self._collected: set[str] = set()
        self._left_out: set[str] = set()
        self._outcomes: dict[str, str] = {}

    def pytest_report_header(self) -> list[str]:
        """Name the wheel and the machine."""
        build = self._subject.build
        facts = ", ".join(f"{name} {value}" for name, value in self._facts.items())
        return [f"wheel: {self._subject.wheel.path.name}, profile {build.profile}, CUDA {build.cuda}", facts]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Spread each test over what the wheel serves."""
        for name, values in self._kit.parameters(self._subject).items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=lambda value: str(value).removeprefix("torch."))

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Remember every test there is, whoever leaves it out later."""
        self._collected.add(_name(item.nodeid))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out, visibly, tests of what the profile trimmed, and of larger machines."""
        beyond = [item for item in items if not self._serves(item)]
        if beyond:
            self._left_out.update(_name(item.nodeid) for item in beyond)
            self._config.hook.pytest_deselected(items=beyond)
            items[:] = [item for item in items if item not in beyond]

    def _serves(self, item: pytest.Item) -> bool:
        needed = [feature for marker in item.iter_markers("needs") for feature in marker.args]
        return all(map(self._subject.build.has, needed)) and self._kit.serves(item)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of tests that cannot be collected is a failure."""
        if report.failed:
            self._outcomes[_name(report.nodeid)] = "failed"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep an outcome; a failure in any phase counts."""
        name = _name(report.nodeid)
        if report.failed:
            self._outcomes[name] = "failed"
        elif report.when == "call":
            self._outcomes.setdefault(name, report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write gpu.json, whole or not at all, if a test ran."""
        if self._target is None or not self._outcomes:
            return
        temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(self._summary(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._target)

    def _named(self, outcome: str) -> list[str]:
        return sorted(name for name, found in self._outcomes.items() if found == outcome)

    def _complete(self) -> bool:
        """Whether every test of the kit ran to its end: a part of it proves nothing about the wheel.

        Not so where names or files were chosen or left out, tests were skipped, or the session ended early.
        """
        ended = {*self._named("passed"), *self._named("failed")}
        whole = [Path(arg).resolve() for arg in self._config.args] == [self._kit.folder.resolve()]
        ignored = self._config.getoption("ignore") or self._config.getoption("ignore_glob")
        return whole and not ignored and ended == self._collected - self._left_out

    def _summary(self) -> dict[str, Any]:
        """What gpu.json holds."""
        names = {outcome: self._named(outcome) for outcome in ("passed", "failed")}
        return {
            "wheel": self._subject.wheel.path.name,
            "sha256": self._subject.wheel.sha256,
            "profile": self._subject.build.profile,
            **self._facts,
            "passed": len(names["passed"]),
            "failed": len(names["failed"]),
            "complete": self._complete(),
            "tests": names,
            "tflops": self._config.stash[fixtures.SPEEDS],
        }


def _name(nodeid: str) -> str:
    """The file and the test, without the folder, which differs by where pytest was started."""
    file, *rest = nodeid.split("::")
    return "::".join([file.rpartition("/")[2], *rest])
