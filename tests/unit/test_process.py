"""Running real processes: output, status, environment, and that nothing survives a stop."""

import os
import resource
import sys
import threading
import time
from pathlib import Path

import pytest

from hopperforge.errors import ToolError
from hopperforge.run.process import TAIL_LINES, Cancelled, Completed, run


def _python(code: str, tmp_path: Path, **arguments: object) -> Completed:
    return run([sys.executable, "-c", code], cwd=tmp_path, env={"ONLY": "this"}, **arguments)  # type: ignore[arg-type]


def test_output_of_both_streams_reaches_log_listener_and_tail(tmp_path: Path) -> None:
    heard: list[str] = []
    log = tmp_path / "log"
    done = _python(
        "import sys; print('out', flush=True); print('err', file=sys.stderr)", tmp_path, log=log, on_line=heard.append
    )
    assert done.status == 0
    assert sorted(heard) == ["err", "out"]
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert sorted(done.tail) == ["err", "out"]


def test_tail_keeps_the_last_lines_only(tmp_path: Path) -> None:
    done = _python("for i in range(100): print(i)", tmp_path)
    assert done.tail == tuple(str(number) for number in range(100 - TAIL_LINES, 100))


def test_environment_is_exactly_what_was_given(tmp_path: Path) -> None:
    done = _python("import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'))", tmp_path)
    assert done.tail == ("['ONLY']",)


@pytest.mark.parametrize(
    ("code", "status", "killed"),
    [
        ("raise SystemExit(7)", 7, False),
        ("import os; os.kill(os.getpid(), 9)", 137, True),
        ("import os; os.kill(os.getpid(), 15)", 143, False),
    ],
)
def test_status_is_what_a_shell_reports(tmp_path: Path, code: str, status: int, killed: bool) -> None:
    done = _python(code, tmp_path)
    assert (done.status, done.killed) == (status, killed)


def test_peak_memory_is_that_of_the_largest_process(tmp_path: Path) -> None:
    child = "x = bytearray(80_000_000)"
    done = _python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", tmp_path)
    # a child counts what it was before it became another program: as large as the process of these tests
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 80_000_000 < done.peak_rss < own + 200_000_000


def test_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"no-such-program cannot be started: No such file"):
        run(["no-such-program"], cwd=tmp_path, env={})


def test_stop_ends_the_whole_group_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('ready', flush=True)\n"
        "child.wait()\n"
    )
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            stop=stop,
            on_line=lambda _: stop.set(),
        )
    assert time.monotonic() - started < 5
    # Both are dead or dying: the kernel may still be taking the second one apart.
    deadline = time.monotonic() + 2
    while any(_runs(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline


def _runs(pid: str) -> bool:
    """Whether a process is there and not merely waiting to be collected by whoever adopted it."""
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_child_that_ignores_termination_is_killed(tmp_path: Path) -> None:
    stop = threading.Event()
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with pytest.raises(Cancelled):
        _python(code, tmp_path, stop=stop, on_line=lambda _: stop.set())


def test_kept_descriptor_reaches_the_child(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        code = f"import os; os.write({file.fileno()}, b'written by the child')"
        done = _python(code, tmp_path, keep_open=[file.fileno()])
    assert done.status == 0
    assert (tmp_path / "file").read_text() == "written by the child"
