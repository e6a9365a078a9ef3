"""TFLOP/s of forward and backward, for gpu.json, and a bound that a healthy Hopper GPU passes with ease."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import pytest
import torch
from smoke_common.speed import Timed
from smoke_kit import Subject, make_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

# An H200 gives 27 and more on such shapes (docs/explanation/fp32-attention.md); of other GPUs nothing was measured.
HOPPER_FLOOR = 10.0


def seconds(call: Callable[[], Any]) -> float:
    """Median of ten calls."""
    times = []
    for _ in range(12):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) / 1000)
    return statistics.median(times[2:])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_speed(subject: Subject, speeds: list[dict[str, Any]], head_dim: int, causal: bool) -> None:
    timed = Timed(2, 2048, 16, head_dim, causal)
    inputs = make_inputs(
        batch=timed.batch,
        seqlen_q=timed.seqlen,
        seqlen_k=timed.seqlen,
        heads=timed.heads,
        heads_k=timed.heads,
        head_dim=head_dim,
    )
    out = subject.attend(*inputs.leaves, causal=causal)
    measured = {
        "forward": timed.operations / seconds(lambda: subject.attend(*inputs.leaves, causal=causal)),
        "backward": 2.5
        * timed.operations
        / seconds(lambda: torch.autograd.grad(out, inputs.leaves, inputs.dout, retain_graph=True)),
    }
    hopper = torch.cuda.get_device_capability() == (9, 0)
    for direction, speed in measured.items():
        tflops = speed / 1e12
        speeds.append(timed.row(f"float32 {direction}", round(tflops, 2)))
        assert tflops > (HOPPER_FLOOR if hopper else 0), f"{direction}: {tflops:.1f} TFLOP/s"
