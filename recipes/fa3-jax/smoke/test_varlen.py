"""Packed sequences against each sequence by itself, forward and backward, and padding behind the last."""

from __future__ import annotations

from functools import partial

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
    reference,
    require_close,
    require_close_gradients,
    to_exact,
)

pytestmark = pytest.mark.needs("VARLEN")

LENGTHS_Q = (100, 0, 257, 1, 64)
LENGTHS_K = (100, 70, 300, 33, 0)
PADDING = 56


def offsets(lengths: tuple[int, ...]) -> jax.Array:
    """Where sequences begin and the last one ends."""
    return jnp.asarray(np.cumsum((0, *lengths)), dtype=jnp.int32)


def sequences(subject: Subject, dtype: str) -> list[Inputs]:
    return [
        make_inputs(
            batch=1, seqlen_q=q, seqlen_k=k, heads=4, heads_k=2, head_dim=subject.head_dim, dtype=dtype, seed=index
        )
        for index, (q, k) in enumerate(zip(LENGTHS_Q, LENGTHS_K, strict=True))
    ]


def packed(parts: list[Inputs]) -> Arrays:
    """The sequences one behind the other, then padding that holds numbers."""

    def join(arrays: list[jax.Array]) -> jax.Array:
        whole = jnp.concatenate([array[0] for array in arrays])
        return jnp.concatenate([whole, jnp.ones((PADDING, *whole.shape[1:]), whole.dtype)])

    return tuple(join([part.arrays[index] for part in parts]) for index in range(3))


def lengths() -> dict[str, object]:
    """The arguments of packed sequences."""
    return {
        "cu_seqlens_q": offsets(LENGTHS_Q),
        "cu_seqlens_k": offsets(LENGTHS_K),
        "max_seqlen_q": max(LENGTHS_Q),
        "max_seqlen_k": max(LENGTHS_K),
    }


@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences(subject: Subject, dtype: str, causal: bool) -> None:
    """Among them one without queries and one without keys, which gets zeros and -inf; padding gets zeros."""
    parts = sequences(subject, dtype)
    descales = tuple(
        jnp.concatenate([part.descales[index] for part in parts]) for index in range(3 if parts[0].descales else 0)
    )
    found = subject.attend(Inputs(*packed(parts), descales), causal=causal, **lengths())
    expected = [reference(*part.exact, causal=causal) for part in parts]
    out = np.concatenate([out[0] for out, _ in expected])
    lse = np.concatenate([lse[0] for _, lse in expected], axis=-1)
    total = sum(LENGTHS_Q)
    require_close((found[0][:total], found[1][:, :total]), (out, lse), dtype)
    assert not np.asarray(found[0][total:], dtype=np.float32).any()


@pytest.mark.needs("BACKWARD")
@pytest.mark.parametrize("causal", [False, True])
def test_packed_gradients(subject: Subject, trained: str, causal: bool) -> None:
    parts = sequences(subject, trained)
    arrays = packed(parts)
    dout = make_inputs(batch=1, seqlen_q=arrays[0].shape[0], head_dim=subject.head_dim, dtype=trained, seed=9).q[0]
    call = partial(subject.package.flash_attention_varlen, causal=causal, **lengths())
    found = jax.jit(lambda *inputs: jax.vjp(call, *inputs[:3])[1](inputs[3]))(*arrays, dout)
    begins = np.cumsum((0, *LENGTHS_Q))
    exact = [
        attention(*part.exact, causal=causal).gradients(to_exact(dout[begin : begin + count])[None])
        for part, begin, count in zip(parts, begins, LENGTHS_Q, strict=False)
    ]
    expected = [np.concatenate([gradients[index][0] for gradients in exact]) for index in range(3)]
    totals = (sum(LENGTHS_Q), sum(LENGTHS_K), sum(LENGTHS_K))
    require_close_gradients([array[:total] for array, total in zip(found, totals, strict=True)], expected, trained)
    for array, total in zip(found, totals, strict=True):
        assert not np.asarray(array[total:], dtype=np.float32).any()
