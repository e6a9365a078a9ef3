"""The executable over the profile's grid: it compares with its own reference in double precision."""

from __future__ import annotations

import re
from typing import Any

import pytest
from smoke_common.speed import FA3_HEADS, HOPPER_FLOOR, Timed, over_fa3_shapes
from smoke_kit import Subject

GRID = {
    "all keys": (),
    "causal": ("--causal",),
    "shared": ("--heads-k", "2"),
    "causal shared": ("--causal", "--heads-k", "2"),
}
SMALL = ("--heads", "8", "--seqlen", "113", "--seqlen-k", "203")

Words = tuple[str, ...]
over_grid = pytest.mark.parametrize("grid", GRID.values(), ids=GRID)


@over_grid
def test_dense(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    subject.require_right("--dtype", dtype, "--head-dim", str(head_dim), *SMALL, *grid)


@pytest.mark.needs("VARLEN")
@over_grid
def test_packed(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--batch", "5", "--varlen")
    subject.require_right(*words, *SMALL, *grid)


@pytest.mark.needs("VARLEN", "PAGEDKV")
@over_grid
def test_small_pages(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--batch", "5", "--varlen", "--paged", "16")
    subject.require_right(*words, *SMALL, *grid)


@pytest.mark.needs("VARLEN", "PAGEDKV")
@over_grid
def test_large_pages(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    """Pages of whole tiles, which TMA fetches where there are queries enough."""
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--batch", "3", "--paged", "1280", "--seqlen", "300")
    subject.require_right(*words, "--heads", "8", "--seqlen-k", "1500", "--rows", "1024", *grid)


@pytest.mark.needs("VARLEN", "APPENDKV")
@over_grid
def test_append(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--batch", "3", "--seqlen", "9", "--seqlen-k", "300")
    subject.require_right(*words, "--heads", "8", "--append", "7", *grid)


@pytest.mark.needs("SPLIT")
@over_grid
def test_split(subject: Subject, dtype: str, head_dim: int, grid: Words) -> None:
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--seqlen", "5", "--seqlen-k", "2000", "--splits", "4")
    subject.require_right(*words, "--heads", "8", *grid)


@pytest.mark.needs("LOCAL")
@pytest.mark.parametrize("window", ["40,0", "40,17", "-1,9", "0,0"])
def test_window(subject: Subject, dtype: str, head_dim: int, window: str) -> None:
    subject.require_right("--dtype", dtype, "--head-dim", str(head_dim), *SMALL, "--window", window)


@pytest.mark.needs("SOFTCAP")
def test_softcap(subject: Subject, dtype: str, head_dim: int) -> None:
    subject.require_right("--dtype", dtype, "--head-dim", str(head_dim), *SMALL, "--softcap", "2.5", "--causal")


def test_without_lse(subject: Subject, dtype: str, head_dim: int) -> None:
    found = subject.require_right("--dtype", dtype, "--head-dim", str(head_dim), *SMALL, "--no-lse")
    assert "lse" not in found


@pytest.mark.needs("BACKWARD")
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param((), id="dense"),
        pytest.param(("--varlen",), id="packed", marks=pytest.mark.needs("VARLEN")),
        pytest.param(("--deterministic",), id="deterministic"),
    ],
)
@over_grid
def test_backward(subject: Subject, dtype: str, head_dim: int, grid: Words, asked: Words) -> None:
    """What has no gradients, float8 and the same bits in head dims above 192, is refused."""
    words = ("--dtype", dtype, "--head-dim", str(head_dim), "--backward", *asked, "--heads", "4", "--batch", "3")
    if dtype == "e4m3" or ("--deterministic" in asked and head_dim > 192):
        done = subject.run(*words)
        assert (done.returncode, "UNSUPPORTED" in done.stderr) == (3, True)
        return
    subject.require_right(*words, "--seqlen", "113", "--seqlen-k", "150", *grid)


def test_too_large_an_error_is_a_status(subject: Subject) -> None:
    """The program must be able to fail: no kernel is as exact as this tolerance asks for."""
    done = subject.run("--head-dim", str(subject.head_dims[0]), "--tolerance", "1e-9")
    assert done.returncode == 1
    assert "WRONG" in done.stdout


@pytest.mark.parametrize("causal", [False, True])
@over_fa3_shapes
def test_speed(
    subject: Subject, speeds: list[dict[str, Any]], dtype: str, shape: tuple[int, int], causal: bool
) -> None:
    timed = Timed(*shape, FA3_HEADS, subject.head_dim, causal)
    sizes = {"batch": timed.batch, "seqlen": timed.seqlen, "heads": timed.heads, "head-dim": timed.head_dim}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    mask = ("--causal",) if causal else ()
    found = subject.require_right("--dtype", dtype, *words, *mask, "--repeat", "30", "--rows", "64")
    match = re.search(r"forward .* ([0-9.]+) TFLOP/s", found)
    assert match is not None
    tflops = float(match[1])
    speeds.append(timed.row(dtype, tflops))
    assert tflops > HOPPER_FLOOR
