"""Gradients of query, key and value against those of the float64 reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import pytest
from smoke_kit import (
    Arrays,
    Inputs,
    Subject,
    make_inputs,
    reference,
    require_close_gradients,
    require_equal_bits,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("BACKWARD")


def gradients(call: Callable[..., jax.Array], arrays: Arrays, seed: int = 7) -> Arrays:
    """The gradients of a weighted sum of the output, the weights being the same for the same shape."""

    def weighted(*inputs: jax.Array) -> jax.Array:
        out = call(*inputs)
        weights = jax.random.normal(jax.random.key(seed), out.shape, jnp.float32)
        return jnp.sum(out.astype(jnp.float64) * weights.astype(out.dtype).astype(jnp.float64))

    return jax.jit(jax.grad(weighted, argnums=(0, 1, 2)))(*arrays)


def compare(subject: Subject, inputs: Inputs, dtype: str, **named: Any) -> None:
    """The wheel's gradients against the reference's, whose weights are rounded as the wheel's are."""
    found = gradients(partial(subject.package.flash_attention, **named), inputs.arrays)

    def exact(*arrays: jax.Array) -> jax.Array:
        weights = jax.random.normal(jax.random.key(7), found[0].shape[:-1] + inputs.v.shape[-1:], jnp.float32)
        rounded = weights.astype(dtype).astype(jnp.float64)
        return jnp.sum(reference(*arrays, **named)[0] * rounded)

    expected = jax.jit(jax.grad(exact, argnums=(0, 1, 2)))(*inputs.exact)
    require_close_gradients(found, expected, dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads_k", [1, 2, 4])
def test_heads(subject: Subject, trained: str, head_dim: int, heads_k: int, causal: bool) -> None:
    inputs = make_inputs(heads=4, heads_k=heads_k, head_dim=head_dim, dtype=trained)
    compare(subject, inputs, trained, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "lengths", [(1, 300), (130, 513), (257, 128)], ids=lambda lengths: f"{lengths[0]}-{lengths[1]}"
)
def test_lengths(subject: Subject, trained: str, lengths: tuple[int, int], causal: bool) -> None:
    inputs = make_inputs(seqlen_q=lengths[0], seqlen_k=lengths[1], head_dim=subject.head_dim, dtype=trained)
    compare(subject, inputs, trained, causal=causal)


@pytest.mark.needs("LOCAL")
def test_window(subject: Subject, trained: str) -> None:
    compare(subject, make_inputs(head_dim=subject.head_dim, dtype=trained), trained, window=(40, 10))


@pytest.mark.needs("SOFTCAP")
def test_softcap(subject: Subject, trained: str) -> None:
    compare(subject, make_inputs(head_dim=subject.head_dim, dtype=trained), trained, softcap=15.0, causal=True)


@pytest.mark.parametrize("heads_k", [2, 4])
def test_deterministic(subject: Subject, trained: str, heads_k: int) -> None:
    inputs = make_inputs(
        heads=4, heads_k=heads_k, seqlen_q=1024, seqlen_k=1024, head_dim=min(subject.head_dim, 192), dtype=trained
    )
    call = partial(subject.package.flash_attention, causal=True, deterministic=True)
    first, again = gradients(call, inputs.arrays), gradients(call, inputs.arrays)
    for found, expected in zip(again, first, strict=True):
        require_equal_bits(found, expected)
