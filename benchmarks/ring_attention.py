"""Dilated attention around a ring of GPUs against one GPU: the same result, and how much faster.

    PYTHONPATH=recipes/hopper-attention/python torchrun --nproc-per-node 2 benchmarks/ring_attention.py

bfloat16, 65536 tokens, forward and backward. Every rank computes the whole sequence by itself and its shard of it
around the ring, from the same numbers. Prints the largest difference of the output and of each gradient in parts of the
largest value, the norm of the difference in parts of the norm, and medians of both times; exits with 1 if a difference
is more than 1e-3 of the largest value, or no number. The kernels of both round to bfloat16, in a ring each step by
itself, and a value has 8 bits there: that is why the norms of the differences may be more.
"""

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from hopper_attention import dilated_attention, explain
from hopper_attention.ring import ring_dilated_attention

GOAL: Final = 1e-3
HEADS: Final = 16
HEAD_DIM: Final = 128
LENGTHS: Final = (2048, 16384, 65536)
RATES: Final = (1, 4, 8)
ROUNDS: Final = 7
NAMES: Final = ("output", "dq", "dk", "dv")

Words = dict[str, Any]


def inputs(seqlen: int) -> list[torch.Tensor]:
    """q, k, v and the gradient of the output: the same on every rank."""
    torch.manual_seed(11)
    return [torch.randn(1, seqlen, HEADS, HEAD_DIM, device="cuda").bfloat16() for _ in range(4)]


def both(function: Callable[..., torch.Tensor], tensors: list[torch.Tensor], words: Words) -> list[torch.Tensor]:
    """Output and gradients."""
    q, k, v, pull = tensors
    leaves = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    out = function(*leaves, **words)
    return [out.detach(), *torch.autograd.grad(out, leaves, pull)]


def milliseconds(run: Callable[[], Any]) -> float:
    """The median time of a call that all ranks begin together."""
    times = []
    for turn in range(ROUNDS + 2):
        dist.barrier()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if turn >= 2:
            times.append(start.elapsed_time(end))
    slowest = torch.tensor(statistics.median(times), device="cuda")
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(slowest.item())


def differences(found: list[torch.Tensor], whole: list[torch.Tensor], here: slice) -> dict[str, list[float]]:
    """For each tensor: the largest difference over the largest value, and norm over norm, over all ranks."""
    said = {}
    for name, one, other in zip(NAMES, found, whole, strict=True):
        apart = one.float() - other[:, here].float()
        largest = torch.stack([apart.abs().max(), other.float().abs().max()])
        squares = torch.stack([apart.square().sum(), other[:, here].float().square().sum()])
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        dist.all_reduce(squares)
        said[name] = [(largest[0] / largest[1]).item(), (squares[0] / squares[1]).sqrt().item()]
    return said


def measure(causal: bool, seqlen: int) -> dict[str, Any]:
    """Compare and time one way; the same on every rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    words = {"segment_lengths": LENGTHS, "dilation_rates": RATES, "causal": causal}
    whole = inputs(seqlen)
    here = slice(rank * seqlen // world, (rank + 1) * seqlen // world)
    shards = [tensor[:, here].contiguous() for tensor in whole]
    apart = differences(both(ring_dilated_attention, shards, words), both(dilated_attention, whole, words), here)

    def forward(function: Callable[..., torch.Tensor], tensors: list[torch.Tensor]) -> None:
        with torch.no_grad():
            function(*tensors[:3], **words)

    times = {
        "forward": [
            milliseconds(lambda: forward(dilated_attention, whole)),
            milliseconds(lambda: forward(ring_dilated_attention, shards)),
        ],
        "forward and backward": [
            milliseconds(lambda: both(dilated_attention, whole, words)),
            milliseconds(lambda: both(ring_dilated_attention, shards, words)),
        ],
    }
    return {"causal": causal, "tokens": seqlen, "gpus": world, "differences": apart, "milliseconds": times}


def agrees(largest: float, norm: float) -> bool:
    """Whether a difference is small enough; NaN is not, which a maximum over ranks may lose but a sum does not."""
    return largest <= GOAL and math.isfinite(norm)


def show(row: dict[str, Any]) -> None:
    """Print what was measured."""
    print("causal" if row["causal"] else "not causal", f"{row['tokens']} tokens, {row['gpus']} GPUs")
    for name, (largest, norm) in row["differences"].items():
        print(f"  {name:7} differs by {largest:.1e} of the largest value, {norm:.1e} by norms")
    for what, (one, ring) in row["milliseconds"].items():
        print(f"  {what:21} one GPU {one:8.2f} ms, ring {ring:8.2f} ms: {one / ring:.2f} times as fast")


def main() -> int:
    """Measure both ways; 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description="Compare a ring of GPUs with one.")
    parser.add_argument("--tokens", type=int, default=65536, help="length of the sequence, a multiple of 65536")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    asked = parser.parse_args()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # torchrun's way to say it
    dist.init_process_group("nccl")
    try:
        rows = [measure(causal, asked.tokens) for causal in (False, True)]
        first = dist.get_rank() == 0
        if first:
            print(torch.cuda.get_device_name(), "torch", torch.__version__)
            tensors = [tensor[:, :64].requires_grad_() for tensor in inputs(64)[:3]]
            print(explain(*tensors, causal=True))
            for row in rows:
                show(row)
        if first and asked.json is not None:
            asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    finally:
        dist.destroy_process_group()
    return 0 if all(agrees(*said) for row in rows for said in row["differences"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
