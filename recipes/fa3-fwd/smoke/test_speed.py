"""A short benchmark for gpu.json, and a bound that a healthy Hopper GPU passes with ease."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from smoke_common.speed import FA3_HEADS, HOPPER_FLOOR, Timed, over_fa3_shapes
from smoke_kit import Subject, make_inputs

WARM_UP = 5
SAMPLES = 30


@pytest.mark.parametrize("causal", [False, True])
@over_fa3_shapes
def test_speed(
    subject: Subject, speeds: list[dict[str, Any]], dtype: torch.dtype, shape: tuple[int, int], causal: bool
) -> None:
    timed = Timed(*shape, FA3_HEADS, subject.head_dim, causal)
    inputs = make_inputs(
        batch=timed.batch,
        seqlen_q=timed.seqlen,
        seqlen_k=timed.seqlen,
        heads=timed.heads,
        heads_k=timed.heads,
        head_dim=timed.head_dim,
        dtype=dtype,
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
    tflops = timed.operations / seconds / 1e12
    speeds.append(timed.row(str(dtype).removeprefix("torch."), round(tflops, 1)))
    hopper = torch.cuda.get_device_capability() == (9, 0)
    assert tflops > (HOPPER_FLOOR if hopper else 0), f"{tflops:.0f} TFLOP/s"
