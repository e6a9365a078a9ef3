"""A short benchmark for gpu.json, and a bound that a healthy Hopper GPU passes with ease."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from smoke_kit import Subject, make_inputs

HEADS = 16
WARM_UP = 5
SAMPLES = 30
# An H200 gives 420 and more on the slowest of these; a kernel that lost its tensor cores or its tuning falls below.
HOPPER_FLOOR = 100.0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(16, 1024), (4, 4096), (1, 16384)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_speed(
    subject: Subject, speeds: list[dict[str, Any]], dtype: torch.dtype, shape: tuple[int, int], causal: bool
) -> None:
    batch, seqlen = shape
    head_dim = subject.head_dim
    inputs = make_inputs(
        batch=batch, seqlen_q=seqlen, seqlen_k=seqlen, heads=HEADS, heads_k=HEADS, head_dim=head_dim, dtype=dtype
    )
    for _ in range(WARM_UP):
        subject.attend(inputs, causal=causal)
    spans = []
    for _ in range(SAMPLES):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        subject.attend(inputs, causal=causal)
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    seconds = statistics.median(start.elapsed_time(end) for start, end in spans) / 1000
    operations = 4 * batch * HEADS * seqlen**2 * head_dim / (2 if causal else 1)
    tflops = operations / seconds / 1e12
    speeds.append(
        {
            "batch": batch,
            "seqlen": seqlen,
            "heads": HEADS,
            "head_dim": head_dim,
            "causal": causal,
            "dtype": str(dtype).removeprefix("torch."),
            "tflops": round(tflops, 1),
        }
    )
    hopper = torch.cuda.get_device_capability() == (9, 0)
    assert tflops > (HOPPER_FLOOR if hopper else 0), f"{tflops:.0f} TFLOP/s"
