"""Rings of processes: each has a shard, and the same attention over the whole sequence, which it computes as well.

    python ring_processes.py FOLDER EVERY WORLD...    # a ring of WORLD ranks for each, of its cases each EVERY-th

One program, so that torch is imported once; its ranks are forked where there is no GPU, for CUDA cannot be forked.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hopper_attention import attention, dilated_attention
from hopper_attention.ring import ring_attention, ring_dilated_attention

SHARD = 8
SECONDS = 240
PAIRS = [((4, 8, 16), (1, 2, 4)), ((8,), (2,)), ((2, 32), (1, 8)), ((4, 16), (1, 2)), ((64,), (1,)), ((16,), (4,))]


def main(rank: int, world: int, meeting: str, every: int) -> None:
    """Compare every case; an assertion that fails ends the process, and with it the test."""
    on_gpu = torch.cuda.device_count() >= world
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        for causal in (False, True):
            compare((rank, world), device, causal, (ring_attention, attention), {})
            for lengths, rates in PAIRS[::every]:
                words = {"segment_lengths": lengths, "dilation_rates": rates}
                compare((rank, world), device, causal, (ring_dilated_attention, dilated_attention), words)
            drop(rank, device, causal)
        cast(rank, device)
        refuse(device)
        refuse_second_derivatives(device)
    finally:
        dist.destroy_process_group()


def compare(
    ranks: tuple[int, int], device: torch.device, causal: bool, functions: tuple[Any, Any], words: dict[str, Any]
) -> None:
    """Outputs and gradients of a shard equal those of the whole; the same numbers on every rank."""
    (rank, world), (ring, whole) = ranks, functions
    torch.manual_seed(3)
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    sizes = [(2, world * SHARD, heads, 8) for heads in (4, 2, 2)]
    inputs = [torch.randn(size, dtype=torch.float64).to(device, dtype).requires_grad_() for size in sizes]
    pull = torch.randn(2, world * SHARD, 4, 8, dtype=torch.float64).to(device, dtype)
    wanted = whole(*inputs, causal=causal, **words)
    right = torch.autograd.grad((wanted * pull).sum(), inputs)
    here = slice(rank * SHARD, (rank + 1) * SHARD)
    shards = [tensor.detach()[:, here].clone().requires_grad_() for tensor in inputs]
    out = ring(*shards, causal=causal, **words)
    assert out.dtype == dtype
    near(out, wanted[:, here])
    for found, of_whole in zip(torch.autograd.grad((out * pull[:, here]).sum(), shards), right, strict=True):
        near(found, of_whole[:, here])


def drop(rank: int, device: torch.device, causal: bool) -> None:
    """With dropout the gradients are those of what forward drew: a small step changes all ranks' sum as they say."""
    torch.manual_seed(3 + rank)
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    shards = [torch.randn(2, SHARD, heads, 8, device=device, dtype=dtype) for heads in (4, 2, 2)]
    ways = [torch.randn_like(tensor) for tensor in shards]
    pull = torch.randn(2, SHARD, 4, 8, device=device, dtype=dtype)
    words = {"segment_lengths": (4, 4 * SHARD), "dilation_rates": (1, 2)}

    def total(step: float, inputs: list[torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(5 + rank)
        moved = [tensor + step * way for tensor, way in zip(inputs, ways, strict=True)]
        return (ring_dilated_attention(*moved, causal=causal, dropout=0.4, **words) * pull).sum()

    leaves = [tensor.clone().requires_grad_() for tensor in shards]
    loss = total(0.0, leaves)
    torch.rand(7, device=device)
    drawn = state_of(device)
    gradients = torch.autograd.grad(loss, leaves)
    assert torch.equal(state_of(device), drawn)  # replaying leaves the generator as it was
    step = 1e-2 if dtype == torch.float32 else 1e-5
    sums = torch.stack(
        [
            (total(step, shards) - total(-step, shards)).detach() / (2 * step),
            torch.stack([(one * way).sum() for one, way in zip(gradients, ways, strict=True)]).sum(),
            (total(0.0, shards) - (ring_dilated_attention(*shards, causal=causal, **words) * pull).sum()).abs(),
        ]
    )
    dist.all_reduce(sums)
    slope, told, changed = sums.tolist()
    assert abs(slope - told) <= (0.05 if dtype == torch.float32 else 1e-6) * max(1.0, abs(told)), (slope, told)
    assert changed > 0.1


def cast(rank: int, device: torch.device) -> None:
    """Under autocast all is as of tensors cast before: backward, which has no autocast, attends in their dtype too."""
    torch.manual_seed(3 + rank)
    shards = [torch.randn(2, SHARD, heads, 8, device=device).requires_grad_() for heads in (4, 2, 2)]
    narrow = [tensor.detach().bfloat16().requires_grad_() for tensor in shards]
    for ring, words in (
        (ring_attention, {}),
        (ring_dilated_attention, {"segment_lengths": (4, 4 * SHARD), "dilation_rates": (1, 2)}),
    ):
        answers = []
        for inputs, enabled in ((shards, True), (narrow, False)):
            torch.manual_seed(5 + rank)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
                out = ring(*inputs, dropout=0.4, **words)
            assert out.dtype == torch.bfloat16
            answers.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
        for one, other in zip(*answers, strict=True):
            near(one.float(), other.float())


def state_of(device: torch.device) -> torch.Tensor:
    """The generator's state."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for rounding."""
    tolerance = 1e-11 if found.dtype == torch.float64 else 1e-4
    assert (found - wanted).abs().max().item() <= tolerance, (found - wanted).abs().max()


def refuse(device: torch.device) -> None:
    """Segments that do not fit the shards are refused by every rank, before any of them waits for another."""
    q = torch.randn(1, SHARD, 2, 8, device=device)
    for length, rate, said in ((3, 1, "do not fill"), (12, 1, "a multiple of the shard's"), (16, 3, "one of the rate")):
        with pytest.raises(ValueError, match=said):
            ring_dilated_attention(q, q, q, segment_lengths=(length,), dilation_rates=(rate,))


def refuse_second_derivatives(device: torch.device) -> None:
    """A gradient of a gradient is refused, not left out."""
    q = torch.randn(1, SHARD, 2, 8, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(ring_attention(q, q, q).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def begin(folder: Path, every: int, worlds: list[int]) -> None:
    """Run a ring of each size, one after the other; SystemExit if a rank failed."""
    torch.set_num_threads(1)
    context = torch.multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    for world in worlds:
        meeting = (folder / f"meeting{world}").as_uri()
        ranks = [context.Process(target=main, args=(rank, world, meeting, every), daemon=True) for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(SECONDS)
        codes = [rank.exitcode for rank in ranks]
        if any(codes) or None in codes:
            raise SystemExit(f"of {world} ranks, the exit codes are {codes}")


if __name__ == "__main__":
    begin(Path(sys.argv[1]), int(sys.argv[2]), [int(text) for text in sys.argv[3:]])
    sys.stdout.write(f"ranks {' '.join(sys.argv[3:])}\n")
