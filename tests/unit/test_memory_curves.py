"""What compiles held over time beside what was set aside for them."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.memory_curves import MARK, Sampler, curve, held_by_unit, main, read_curves, write_curves

from hopperforge.model.pack import Cost, Unit

COST = Cost(seconds=100, peak_rss=1000)
MERGED = Unit(path="merged/ab.cu", arguments=(), merged=("a.cu", "b.cu"))
QUIET = ((10.0, 200), (89.0, 1000), (90.0, 670), (200.0, 100))


def test_a_curve_is_parted_where_the_peak_is_taken_to_be_over() -> None:
    found = curve(MERGED, COST, QUIET)
    assert found.calm_at == pytest.approx(90)
    assert (found.early, found.late, found.within) == (1000, 670, True)
    assert not curve(MERGED, COST, [(91.0, 671)]).within
    assert not curve(MERGED, COST, [(1.0, 1001)]).within
    single = replace(MERGED, merged=())
    assert curve(single, COST, [(99.0, 1000)]).within
    assert not curve(single, COST, [(99.0, 1001)]).within


def test_the_table_names_first_what_held_too_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curves.jsonl"
    curves = [curve(MERGED, COST, QUIET), curve(replace(MERGED, path="merged/z.cu"), COST, [(91.0, 700)])]
    write_curves(path, curves)
    assert read_curves(path) == curves
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "     91      100   0.00   0.00   0.70* merged/z.cu",
        "    200      100   0.00   1.00   0.67  merged/ab.cu",
        "1 of 2 units held more than was set aside for them at that age",
    ]
    write_curves(path, [*curves[:1], curve(replace(MERGED, path="never/seen.cu"), COST, [])])
    assert main([str(path)]) == 0


def test_curves_without_a_moment_are_no_evidence(tmp_path: Path) -> None:
    """As where compiles are not found by the words that mark them: each would be within what was set aside."""
    path = tmp_path / "curves.jsonl"
    for curves in ([], [curve(MERGED, COST, [])]):
        write_curves(path, curves)
        with pytest.raises(SystemExit, match="shows no compile at any moment"):
            main([str(path)])


# A leader that is told a unit's path as nvcc is, and a child of it that holds 60 MB.
LEADER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHILD = "held = bytes(range(256)) * 240000; print('ready', flush=True); input()"


def test_processes_are_summed_by_the_unit_their_leader_compiles() -> None:
    argv = [sys.executable, "-c", LEADER, CHILD, f"{MARK}{MERGED.path}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"ready\n"
        found = held_by_unit(Path("/proc"))
        sampler = Sampler()
        sampler.look(time.monotonic())
        sampler.look(time.monotonic() + 5)
        leader.communicate(b"\n")
    assert 60_000_000 < found[MERGED.path] < 400_000_000
    assert [age for age, _ in sampler.seen[MERGED.path]] == [0.0, pytest.approx(5, abs=0.5)]
    assert MERGED.path not in held_by_unit(Path("/proc"))


def test_a_sampler_ends_with_its_block() -> None:
    with Sampler() as sampler:
        thread = sampler.thread
    assert thread is not None
    assert not thread.is_alive()
