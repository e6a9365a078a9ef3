"""A short benchmark for gpu.json, and a bound that a healthy Hopper GPU passes with ease."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from smoke_common.speed import FA3_HEADS, HOPPER_FLOOR, Timed, over_fa3_shapes
from smoke_kit import Subject

WARM_UP = 5
CALLS = 30


@pytest.mark.parametrize("causal", [False, True])
@over_fa3_shapes
def test_speed(
    subject: Subject, speeds: list[dict[str, Any]], dtype: str, shape: tuple[int, int], causal: bool
) -> None:
    """Many calls in one queue, waited for once: the time of a launch does not count."""
    timed = Timed(*shape, FA3_HEADS, subject.head_dim, causal)
    size = (timed.batch, timed.seqlen, timed.heads, timed.head_dim)
    q, k, v = (jax.random.normal(jax.random.key(seed), size, jnp.bfloat16).astype(dtype) for seed in range(3))
    call = jax.jit(lambda q, k, v: subject.package.flash_attention_hopper_fwd(q, k, v, causal=causal))
    for _ in range(WARM_UP):
        call(q, k, v).block_until_ready()
    begin = time.perf_counter()
    found = [call(q, k, v) for _ in range(CALLS)]
    found[-1].block_until_ready()
    seconds = (time.perf_counter() - begin) / CALLS
    tflops = timed.operations / seconds / 1e12
    speeds.append(timed.row(dtype, round(tflops, 1)))
    assert tflops > HOPPER_FLOOR, f"{tflops:.0f} TFLOP/s"
