"""Gradients of query, key and value against those of the float64 reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoke_kit import (
    Arrays,
    Inputs,
    Subject,
    attention,
    make_inputs,
    require_close_gradients,
    require_equal_bits,
    to_exact,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("BACKWARD")


def gradients(call: Callable[..., jax.Array], inputs: Inputs) -> tuple[jax.Array, Arrays]:
    """A gradient of the output, the same for the same shape, and those of query, key and value for it."""

    def derive(q: jax.Array, k: jax.Array, v: jax.Array, dout: jax.Array) -> Arrays:
        found: Arrays = jax.vjp(call, q, k, v)[1](dout)
        return found

    shape = (*inputs.q.shape[:-1], inputs.v.shape[-1])
    dout = jnp.asarray(np.random.default_rng(7).standard_normal(shape, dtype=np.float32)).astype(inputs.q.dtype)
    return dout, jax.jit(derive)(*inputs.arrays, dout)


def compare(subject: Subject, inputs: Inputs, dtype: str, **named: Any) -> None:
    """The wheel's gradients against the reference's."""
    dout, found = gradients(partial(subject.package.flash_attention, **named), inputs)
    require_close_gradients(found, attention(*inputs.exact, **named).gradients(to_exact(dout)), dtype)


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
    (_, first), (_, again) = gradients(call, inputs), gradients(call, inputs)
    for found, expected in zip(again, first, strict=True):
        require_equal_bits(found, expected)
