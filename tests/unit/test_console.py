"""What a reader sees in a pipe and on a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from hopperforge.console import LiveReporter, PlainReporter, describe, duration, grid, make_reporter
from hopperforge.report import Progress

MOMENT = Progress(
    done=3, total=96, running=("a", "b", "c", "d", "e"), memory=8 * 2**30, in_use=7 * 2**30, seconds_left=200.0
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (3900, "1 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_is_one_line_with_everything_in_it() -> None:
    assert (
        describe(MOMENT)
        == "3/96 units · compiling a, b, c and 2 more · 7.0 GiB in use, 8.0 reserved · about 3 min 20 s left"
    )


def test_memory_in_use_elsewhere_is_not_invented() -> None:
    moment = replace(MOMENT, in_use=None, running=("a",))
    assert describe(moment) == "3/96 units · compiling a · 8.0 GiB reserved · about 3 min 20 s left"


def test_unknown_time_left_is_not_invented() -> None:
    assert describe(Progress(done=0, total=2, running=(), memory=0, in_use=0, seconds_left=None)) == "0/2 units"


def test_grid_aligns_columns() -> None:
    assert grid(["build", "size"], [["a", "1"], ["longer", "22"]]) == ["build   size", "a       1", "longer  22"]


def test_pipe_gets_plain_lines_and_no_repetition() -> None:
    stream = io.StringIO()
    reporter = make_reporter(stream, verbose=False)
    assert isinstance(reporter, PlainReporter)
    reporter.stage("source", "v2.8.3")
    reporter.progress(MOMENT)
    reporter.progress(MOMENT)
    reporter.output("front", "not asked for")
    reporter.warn("careful")
    reporter.table("Results", ["build"], [["x"]])
    assert stream.getvalue().splitlines() == [
        "source    v2.8.3",
        "          " + describe(MOMENT),
        "warning: careful",
        "",
        "Results",
        "build",
        "x",
    ]


def test_verbose_pipe_shows_processes() -> None:
    stream = io.StringIO()
    PlainReporter(stream, verbose=True).output("front", "g++ ...")
    assert stream.getvalue() == "front: g++ ...\n"


def test_terminal_shows_brackets_as_they_are_and_ends_its_display() -> None:
    stream = io.StringIO()
    reporter = LiveReporter(Console(file=stream, force_terminal=True, width=100))
    reporter.stage("kernels", "[bold]2 units")
    reporter.progress(MOMENT)
    reporter.progress(Progress(done=96, total=96, running=(), memory=0, in_use=0, seconds_left=0.0))
    reporter.table("Results", ["build"], [["[x]"]])
    shown = stream.getvalue()
    assert "[bold]2 units" in shown
    assert "[x]" in shown
    assert "3/96 units" in shown


def test_closing_ends_the_display_in_the_middle_of_work() -> None:
    stream = io.StringIO()
    reporter = LiveReporter(Console(file=stream, force_terminal=True, width=100))
    reporter.progress(MOMENT)
    reporter.close()
    assert stream.getvalue().rstrip("\r\n").endswith("\x1b[2K"), "the moving line is taken away"
    assert "\x1b[?25h" in stream.getvalue(), "the cursor is shown again"
