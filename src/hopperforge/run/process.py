"""Running one process: no shell, merged output in a log, a heartbeat, and no survivor when we stop.

The child gets exactly the environment it is given. It leads a process group of its own, so that stopping it
stops what it started; nothing else is killed.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from hopperforge.errors import ToolError

TAIL_LINES: Final = 40
HEARTBEAT_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 5.0

_SIGKILL_STATUS: Final = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a process ended.

    `status` is what a shell would report: 128 + N after signal N. `peak_rss` is in bytes, of the largest
    process among the child and those it waited for; Linux counts a child before its exec as well, so it is never
    below our own resident size.
    """

    argv: tuple[str, ...]
    status: int
    seconds: float
    peak_rss: int
    tail: tuple[str, ...]
    log: Path | None

    @property
    def killed(self) -> bool:
        """Whether the process, or one it ran for us, was killed (status 137): on Linux mostly for want of memory."""
        return self.status == _SIGKILL_STATUS


class Cancelled(Exception):  # noqa: N818 - like asyncio's, it is a state and not a failure
    """The process was stopped because `stop` was set."""


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    on_heartbeat: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    keep_open: Sequence[int] = (),
) -> Completed:
    """Run `argv` to its end and say how it went.

    `on_heartbeat` is called with the seconds so far whenever the process was silent for 30 s. Setting `stop`
    ends the process group and raises Cancelled. `keep_open` are descriptors the child inherits, locks for
    instance. Raises ToolError if the program cannot be started.
    """
    words = tuple(str(word) for word in argv)
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
        child = _start(words, cwd, env, keep_open)
        stack.enter_context(_no_survivor(child))
        watcher = _Watcher(child, stop, on_heartbeat, started)
        stack.enter_context(watcher)
        for line in _lines(child):
            watcher.heard = time.monotonic()
            tail.append(line)
            if sink:
                print(line, file=sink, flush=True)
            if on_line:
                on_line(line)
        _, wait_status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(wait_status)
    if stop is not None and stop.is_set():
        raise Cancelled
    code = child.returncode
    return Completed(
        argv=words,
        status=code if code >= 0 else 128 - code,
        seconds=time.monotonic() - started,
        peak_rss=usage.ru_maxrss * 1024,
        tail=tuple(tail),
        log=log,
    )


def _start(
    words: tuple[str, ...], cwd: Path, env: Mapping[str, str], keep_open: Sequence[int]
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(  # noqa: S603 - argv lists only, never a shell
            words,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    except OSError as error:
        message = f"{words[0]} cannot be started: {error.strerror}"
        raise ToolError(message, detail=[f"in {cwd}"]) from error


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    stream: IO[str] | None = child.stdout
    if stream is not None:
        for line in stream:
            yield line.rstrip("\n")


@contextlib.contextmanager
def _no_survivor(child: subprocess.Popen[str]) -> Iterator[None]:
    """End the whole group unless the child ended by itself."""
    try:
        yield
    finally:
        if child.returncode is None:
            _end_group(child)
        if child.stdout is not None:
            child.stdout.close()


def _end_group(child: subprocess.Popen[str]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class _Watcher(contextlib.AbstractContextManager[None]):
    """A thread beside a running child: it sends heartbeats, and ends the group when asked to stop."""

    def __init__(
        self,
        child: subprocess.Popen[str],
        stop: threading.Event | None,
        on_heartbeat: Callable[[float], None] | None,
        started: float,
    ) -> None:
        self.heard = started
        self._child = child
        self._stop = stop
        self._on_heartbeat = on_heartbeat
        self._started = started
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self._stop is not None or self._on_heartbeat is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            if self._stop is not None and self._stop.is_set():
                self._end()
                return
            now = time.monotonic()
            if self._on_heartbeat is not None and now - self.heard >= HEARTBEAT_SECONDS:
                self.heard = now
                self._on_heartbeat(now - self._started)

    def _end(self) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, sign)
            if self._over.wait(GRACE_SECONDS):
                return
