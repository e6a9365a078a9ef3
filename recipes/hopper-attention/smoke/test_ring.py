"""The ring in as many processes as it has ranks: over gloo on CPUs, over NCCL where there are as many GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from ring_processes import main

SECONDS = 300


@pytest.mark.parametrize("world", [2, 3])
def test_shards_equal_the_whole(world: int, tmp_path: Path) -> None:
    """Of three, a segment of two shards leaves one rank by itself. Processes are forked where there is no GPU."""
    torch.set_num_threads(1)
    way = "spawn" if torch.cuda.is_available() else "fork"  # CUDA cannot be forked, and torch takes long to import
    context = torch.multiprocessing.get_context(way)
    meeting = (tmp_path / "meeting").as_uri()
    ranks = [context.Process(target=main, args=(rank, world, meeting), daemon=True) for rank in range(world)]
    for rank in ranks:
        rank.start()
    try:
        for rank in ranks:
            rank.join(SECONDS)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0] * world
