"""The ring in as many processes as it has ranks: over gloo on CPUs, over NCCL where there are as many GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hopper_attention
import pytest

WORLDS = ("2", "3")


def test_shards_equal_the_whole(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Of three ranks, a segment of two shards leaves one by itself. With --every, each other case is left out."""
    every = "1" if pytestconfig.getoption("every") == 1 else "2"
    package = str(Path(hopper_attention.__file__).parents[1])
    run = subprocess.run(  # noqa: S603  # this script, by this Python
        [sys.executable, Path(__file__).with_name("ring_processes.py"), tmp_path, every, *WORLDS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == ["ranks", *WORLDS]
