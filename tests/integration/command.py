"""Running the real command line in a process of its own, as a user's shell would."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

MakeHome = Callable[[str], Path]
"""What the fixture `make_home` gives: it makes a folder for `hopperforge(..., home=...)`."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def _environment(cache: Path, wheelhouse: Path, changes: Mapping[str, str | None]) -> dict[str, str]:
    env = {**os.environ, "HOPPERFORGE_CACHE": str(cache), "HOPPERFORGE_WHEELHOUSE": str(wheelhouse)}
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    return env


def hopperforge(
    *words: str,
    home: Path,
    project: Path = PROJECT,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 900,
) -> Ended:
    """Run one command with cache and wheelhouse in `home`; None in `env` removes a variable."""
    done = subprocess.run(
        [sys.executable, "-m", "hopperforge", *words],
        cwd=project,
        env=_environment(home / "cache", home / "wheelhouse", env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """A command under way, whose lines can be waited for and which can be sent signals."""

    def __init__(self, *words: str, home: Path, env: Mapping[str, str | None] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hopperforge", *words],
            cwd=PROJECT,
            env=_environment(home / "cache", home / "wheelhouse", env or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A test run started in the background ignores Ctrl-C and would pass that on.
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - no thread of ours runs here
        )
        self.lines: list[str] = []

    def wait_for(self, text: str, timeout: float = 300) -> str:
        """Read lines until one holds `text`."""
        stream = self._process.stderr
        assert stream is not None
        guard = threading.Timer(timeout, self._process.kill)
        guard.start()
        try:
            for line in stream:
                self.lines.append(line.rstrip("\n"))
                if text in line:
                    return line
        finally:
            guard.cancel()
        message = f"{text!r} never came: " + "\n".join(self.lines)
        raise AssertionError(message)

    def send(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the status."""
        self._process.send_signal(number)
        stream = self._process.stderr
        assert stream is not None
        self.lines += stream.read().splitlines()
        stream.close()
        return self._process.wait(120)

    def finish(self) -> int:
        """Wait for the end; returns the status."""
        return self.send(signal.SIGCONT)


def processes(names: Sequence[str], within: Path) -> list[int]:
    """List the running processes of these program names that work in a folder of `within`.

    Others of the machine are none of ours; those merely waiting to be collected are over.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text().strip()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            place = (folder / "cwd").readlink()
        except OSError:  # it ended while we looked
            continue
        if name in names and state != "Z" and place.is_relative_to(within):
            found.append(int(folder.name))
    return found
