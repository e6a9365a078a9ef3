"""Attention for JAX: what users call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from jax.ad_checkpoint import checkpoint_name

from . import _batching, _calls
from ._library import UnsupportedFeatureError
from ._operands import require_descales, require_lengths, require_operands
from ._options import UNLIMITED, Options, make_options

if TYPE_CHECKING:
    from collections.abc import Sequence

OUT_NAME = "fa3_jax_out"
LSE_NAME = "fa3_jax_lse"

Result = jax.Array | tuple[jax.Array, jax.Array]


def flash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    softcap: float = 0.0,
    deterministic: bool = False,
    return_lse: bool = False,
) -> Result:
    """Softmax(query key^T softmax_scale) value, with gradients of query, key and value.

    Shapes: query (batch, seqlen_q, heads, head_dim), key (batch, seqlen_k, heads_k, head_dim), value (batch, seqlen_k,
    heads_k, head_dim_v); heads_k divides heads, and query head h uses key head h // (heads // heads_k). The result is
    (batch, seqlen_q, heads, head_dim_v). No axis may be of length 0, but one that vmap takes away may: the result is
    empty then.

    Dtypes: float16 or bfloat16, one for all three; the result has the same, sums are float32. Head dims are multiples
    of 8 up to what the profile holds, see `fa3_jax.build_info()`.

    softmax_scale: factor of the scores, 1 / sqrt(head_dim) if left out.
    causal: a query sees the keys up to its own place; the last query's place is that of the last key.
    window: (left, right), how many keys a query sees on either side of its place; -1 is no limit.
    softcap: above 0, scores become softcap * tanh(scores / softcap).
    deterministic: gradients of the same bits in every run, slower; head dims up to 192.
    return_lse: also return the natural logarithm of the sums of exponentials, float32 (batch, heads, seqlen_q), -inf or
    inf where a query sees no key. It has no gradient.

    All but the arrays must be known while tracing. Works under jit, grad, vmap (which folds its axis into the batch),
    checkpoint, shard_map, and jit over arrays that are sharded by batch and by heads; forward-mode derivatives do not
    exist. A policy of jax.checkpoint can keep what is named "fa3_jax_out" and "fa3_jax_lse".

    Raises while tracing: TypeError for dtypes and for traced options, ValueError for shapes and numbers that make no
    sense, UnsupportedFeatureError for what the profile (or every profile) lacks, the backward pass not before a
    gradient is asked for. Raises when run, where there is no GPU of compute capability 9.0: JAX's runtime error.
    """
    require_operands(query, key, value, packed=False)
    options = make_options(
        query.shape[-1],
        softmax_scale=softmax_scale,
        causal=causal,
        window=window,
        softcap=softcap,
        deterministic=deterministic,
    )
    return _answer(_differentiable(options, query, key, value), return_lse=return_lse)


def flash_attention_varlen(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cu_seqlens_q: jax.Array,
    cu_seqlens_k: jax.Array,
    *,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    softcap: float = 0.0,
    deterministic: bool = False,
    return_lse: bool = False,
) -> Result:
    """Attention within each of several sequences that are packed one behind the other, with gradients.

    Shapes: query (total_q, heads, head_dim), key (total_k, heads_k, head_dim), value (total_k, heads_k, head_dim_v);
    the result is (total_q, heads, head_dim_v), and the LSE (heads, total_q). Sequence i holds the rows from
    cu_seqlens[i] to cu_seqlens[i + 1]; both are int32 (batch + 1,), begin with 0 and never fall. Rows behind the last
    sequence are padding: zero in the result and in the gradients. A sequence may be empty.

    max_seqlen_q, max_seqlen_k: at least the longest sequence, in rows. They are not checked against the offsets, which
    are known on the device only: a longer sequence is computed wrongly.

    The rest, and what is raised, is as in `flash_attention`. vmap calls it once for each element; partitioners split it
    by heads only (split the batch with shard_map).
    """
    require_operands(query, key, value, packed=True)
    require_lengths(cu_seqlens_q, cu_seqlens_k)
    options = make_options(
        query.shape[-1],
        softmax_scale=softmax_scale,
        causal=causal,
        window=window,
        softcap=softcap,
        deterministic=deterministic,
        lengths=(max_seqlen_q, max_seqlen_k),
    )
    return _answer(_differentiable(options, query, key, value, cu_seqlens_q, cu_seqlens_k), return_lse=return_lse)


def flash_attention_hopper_fwd(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    window: tuple[int, int] | None = UNLIMITED,
    softcap: float = 0.0,
    num_splits: int = 1,
    query_descale: jax.Array | None = None,
    key_descale: jax.Array | None = None,
    value_descale: jax.Array | None = None,
    cu_seqlens_q: jax.Array | None = None,
    cu_seqlens_k: jax.Array | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    return_lse: bool = False,
) -> Result:
    """The forward pass alone, with what only it can: float8 and split keys.

    Shapes, options and errors are those of `flash_attention`, or, with the four arguments of packed sequences, of
    `flash_attention_varlen`. Gradients raise.

    Dtypes: also float8_e4m3fn, the result then being bfloat16; head dims are multiples of 16. The descales are float32
    (batch, heads_k), or all None: query, key and value stand for their product with them (the query's by its key head).

    num_splits: into how many parts the keys are split, to fill a GPU that has few queries to compute; at most 256.
    1, the default, gives the same bits as torch's front by default.
    """
    offsets = _offsets(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    packed = bool(offsets)
    require_operands(query, key, value, packed=packed)
    if packed:
        require_lengths(*offsets)
    descales = _descales(query_descale, key_descale, value_descale)
    options = make_options(
        query.shape[-1],
        softmax_scale=softmax_scale,
        causal=causal,
        window=window,
        softcap=softcap,
        num_splits=num_splits,
        lengths=(max_seqlen_q, max_seqlen_k) if max_seqlen_q is not None and max_seqlen_k is not None else None,
        descaled=bool(descales),
    )
    if descales:
        batch = _calls.batch_of(options, query, offsets)
        require_descales(descales, query, batch=batch, heads_k=key.shape[-2])
    _calls.forward_shapes(options, query, key, value, (*offsets, *descales))
    return _answer(_forward_only(options, query, key, value, *offsets, *descales), return_lse=return_lse)


def _answer(results: Sequence[jax.Array], *, return_lse: bool) -> Result:
    out, lse = results
    return (out, jax.lax.stop_gradient(lse)) if return_lse else out


def _offsets(*given: Any) -> tuple[Any, ...]:
    """The offsets, if the arguments of packed sequences are given; ValueError if only some are."""
    missing = [argument is None for argument in given]
    if all(missing):
        return ()
    if any(missing):
        raise ValueError("packed sequences need cu_seqlens_q, cu_seqlens_k, max_seqlen_q and max_seqlen_k, all four")
    return given[0], given[1]


def _descales(*given: Any) -> tuple[Any, ...]:
    missing = [argument is None for argument in given]
    if all(missing):
        return ()
    if any(missing):
        raise ValueError("query_descale, key_descale and value_descale are given all three, or none")
    return given


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(options: Options, *operands: jax.Array) -> tuple[jax.Array, ...]:
    """Output and LSE of query, key, value and the offsets of packed sequences."""
    query, key, value, *offsets = operands
    _calls.forward_shapes(options, query, key, value, offsets)
    return _batching.forward(options, *operands)


def _differentiable_fwd(options: Options, *operands: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
    query, key, value, *offsets = operands
    if str(query.dtype) == "float8_e4m3fn":
        raise TypeError("float8 has no backward pass: use float16 or bfloat16 where gradients are taken")
    _calls.backward_shapes(options, query, key, value, offsets)  # a trimmed backward pass is refused before the forward
    out, lse = _differentiable(options, *operands)
    out, lse = checkpoint_name(out, OUT_NAME), checkpoint_name(lse, LSE_NAME)
    return (out, lse), (query, key, value, out, lse, tuple(offsets))


def _differentiable_bwd(
    options: Options, kept: tuple[Any, ...], gradients: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    *inputs, offsets = kept
    found = _batching.backward(options, *inputs, gradients[0], *offsets)
    return (*found, *(None for _ in offsets))


_differentiable.defvjp(_differentiable_fwd, _differentiable_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward_only(options: Options, *operands: jax.Array) -> tuple[jax.Array, ...]:
    """Output and LSE, with an error of ours in place of gradients."""
    return _batching.forward(options, *operands)


def _refuse_gradient(options: Options, *operands: jax.Array) -> tuple[Any, Any]:
    del options, operands
    raise UnsupportedFeatureError("flash_attention_hopper_fwd has no gradient: use flash_attention")


def _unreached(options: Options, kept: Any, gradients: Any) -> tuple[Any, ...]:
    raise AssertionError((options, kept, gradients))


_forward_only.defvjp(_refuse_gradient, _unreached)
