"""A short benchmark for gpu.json, and a bound that a healthy Hopper GPU passes with ease."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from smoke_kit import Subject

HEADS = 16
CALLS = 30
# An H200 gives 420 and more on the slowest of these; a kernel that lost its tensor cores or its tuning falls below.
FLOOR = 100.0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(16, 1024), (4, 4096), (1, 16384)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_speed(
    subject: Subject, speeds: list[dict[str, Any]], dtype: str, shape: tuple[int, int], causal: bool
) -> None:
    """Many calls in one queue, waited for once: the time of a launch does not count."""
    batch, seqlen = shape
    head_dim = subject.head_dim
    size = (batch, seqlen, HEADS, head_dim)
    q, k, v = (jax.random.normal(jax.random.key(seed), size, jnp.bfloat16).astype(dtype) for seed in range(3))
    call = jax.jit(lambda q, k, v: subject.package.flash_attention_hopper_fwd(q, k, v, causal=causal))
    for _ in range(5):
        call(q, k, v).block_until_ready()
    begin = time.perf_counter()
    found = [call(q, k, v) for _ in range(CALLS)]
    found[-1].block_until_ready()
    seconds = (time.perf_counter() - begin) / CALLS
    tflops = 4 * batch * HEADS * seqlen**2 * head_dim / (2 if causal else 1) / seconds / 1e12
    row = {"batch": batch, "seqlen": seqlen, "heads": HEADS, "head_dim": head_dim, "causal": causal, "dtype": dtype}
    speeds.append({**row, "tflops": round(tflops, 1)})
    assert tflops > FLOOR, f"{tflops:.0f} TFLOP/s"
