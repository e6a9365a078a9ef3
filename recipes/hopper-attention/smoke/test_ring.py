"""The ring in as many processes as it has ranks: over gloo on CPUs, over NCCL where there are as many GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hopper_attention
import pytest


@pytest.mark.parametrize("world", [2, 3])
def test_shards_equal_the_whole(world: int, tmp_path: Path) -> None:
    """Of three, a segment of two shards leaves one rank by itself."""
    package = str(Path(hopper_attention.__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("ring_processes.py")
    meeting = (tmp_path / "meeting").as_uri()
    processes = [
        subprocess.Popen(  # noqa: S603  # this script, by this Python
            [sys.executable, str(script), str(rank), str(world), meeting],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(said)
