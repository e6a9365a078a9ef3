"""The forward operator as torch.compile sees it: functional, with shapes known before it runs.

The compiled module's own operator may return the `out` it was given and says nothing about shapes, so torch.compile
can neither trace nor reorder it. Two operators wrap it: `fa3_fwd::_forward` changes none of its inputs,
`fa3_fwd::_forward_append` writes new keys and values into the cache it is given. Both return fresh tensors and run the
same kernels with the same arguments as an eager call, so the bits are the same. Eager calls never come here.

Inference only: a gradient through a compiled graph is refused by torch, as no backward formula is registered.
"""

from __future__ import annotations

import torch

from . import _guard

_SCHEMA = (
    "(Tensor q, {k} k, {v} v, Tensor? k_new, Tensor? v_new, Tensor? qv, "
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? cu_seqlens_k_new, Tensor? seqused_q, Tensor? seqused_k, "
    "SymInt? max_seqlen_q, SymInt? max_seqlen_k, Tensor? page_table, Tensor? kv_batch_idx, Tensor? leftpad_k, "
    "Tensor? rotary_cos, Tensor? rotary_sin, Tensor? seqlens_rotary, "
    "Tensor? q_descale, Tensor? k_descale, Tensor? v_descale, float? softmax_scale, bool causal, "
    "SymInt window_left, SymInt window_right, SymInt attention_chunk, float softcap, bool rotary_interleaved, "
    "Tensor? scheduler_metadata, SymInt num_splits, bool? pack_gqa, SymInt sm_margin) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def _last_contiguous(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The tensor with its last dimension contiguous; the graph may hand over other strides than the caller's."""
    return tensor.contiguous() if tensor is not None and tensor.stride(-1) != 1 else tensor


def _whole(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _run(  # noqa: PLR0917  # the operator's arguments, by position
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_new: torch.Tensor | None,
    v_new: torch.Tensor | None,
    qv: torch.Tensor | None,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    cu_seqlens_k_new: torch.Tensor | None,
    seqused_q: torch.Tensor | None,
    seqused_k: torch.Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
    page_table: torch.Tensor | None,
    kv_batch_idx: torch.Tensor | None,
    leftpad_k: torch.Tensor | None,
    rotary_cos: torch.Tensor | None,
    rotary_sin: torch.Tensor | None,
    seqlens_rotary: torch.Tensor | None,
    q_descale: torch.Tensor | None,
    k_descale: torch.Tensor | None,
    v_descale: torch.Tensor | None,
    softmax_scale: float | None,
    causal: bool,
    window_left: int,
    window_right: int,
    attention_chunk: int,
    softcap: float,
    rotary_interleaved: bool,
    scheduler_metadata: torch.Tensor | None,
    num_splits: int,
    pack_gqa: bool | None,
    sm_margin: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Check the call, then run the kernels; scratch of splits chosen by the heuristic (num_splits=0) is dropped."""
    _guard.check_forward(
        q,
        k,
        v,
        k_new=k_new,
        qv=qv,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        seqused_q=seqused_q,
        seqused_k=seqused_k,
        leftpad_k=leftpad_k,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k,
        page_table=page_table,
        causal=causal,
        window_size=(window_left, window_right),
        attention_chunk=attention_chunk,
        softcap=softcap,
        num_splits=num_splits,
        pack_gqa=pack_gqa,
    )
    out, softmax_lse, out_accum, softmax_lse_accum = torch.ops.fa3_fwd.fwd(
        _last_contiguous(q),
        k if k_new is not None else _last_contiguous(k),
        v if k_new is not None else _last_contiguous(v),
        _last_contiguous(k_new),
        _last_contiguous(v_new),
        _last_contiguous(qv),
        None,
        _whole(cu_seqlens_q),
        _whole(cu_seqlens_k),
        _whole(cu_seqlens_k_new),
        _whole(seqused_q),
        _whole(seqused_k),
        max_seqlen_q,
        max_seqlen_k,
        _last_contiguous(page_table),
        _whole(kv_batch_idx),
        _whole(leftpad_k),
        _whole(rotary_cos),
        _whole(rotary_sin),
        _whole(seqlens_rotary),
        q_descale,
        k_descale,
        v_descale,
        softmax_scale,
        causal,
        window_left,
        window_right,
        attention_chunk,
        softcap,
        rotary_interleaved,
        scheduler_metadata,
        num_splits,
        pack_gqa,
        sm_margin,
    )
    if num_splits <= 1:
        out_accum = q.new_empty(0, dtype=torch.float32)
        softmax_lse_accum = q.new_empty(0, dtype=torch.float32)
    return out, softmax_lse, out_accum, softmax_lse_accum


def _shapes(  # noqa: PLR0917  # the operator's arguments, by position
    q: torch.Tensor,
    k: torch.Tensor,  # noqa: ARG001
    v: torch.Tensor,
    k_new: torch.Tensor | None,  # noqa: ARG001
    v_new: torch.Tensor | None,  # noqa: ARG001
    qv: torch.Tensor | None,  # noqa: ARG001
    cu_seqlens_q: torch.Tensor | None,
    *rest: object,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Empty tensors as the operator returns them.

    out: q's shape with v's head dim, q's dtype (bfloat16 for FP8). softmax_lse: float32, (batch, heads, seqlen_q), with
    cu_seqlens_q (heads, total_q). The two accumulators: float32, one such per split, heads before rows; (0,) unsplit.
    """
    num_splits = rest[-3]
    if not isinstance(num_splits, (int, torch.SymInt)):
        raise TypeError(f"num_splits is {num_splits!r}, not an integer")
    dtype = torch.bfloat16 if q.dtype == torch.float8_e4m3fn else q.dtype
    heads, head_dim_v = q.shape[-2], v.shape[-1]
    rows = (q.shape[0], heads, q.shape[1]) if cu_seqlens_q is None else (heads, q.shape[0])
    out = q.new_empty((*q.shape[:-1], head_dim_v), dtype=dtype)
    softmax_lse = q.new_empty(rows, dtype=torch.float32)
    if num_splits <= 1:
        return out, softmax_lse, q.new_empty(0, dtype=torch.float32), q.new_empty(0, dtype=torch.float32)
    out_accum = q.new_empty((num_splits, *rows, head_dim_v), dtype=torch.float32)
    return out, softmax_lse, out_accum, q.new_empty((num_splits, *rows), dtype=torch.float32)


_pure = torch.library.custom_op(
    "fa3_fwd::_forward", _run, mutates_args=(), schema=_SCHEMA.format(k="Tensor", v="Tensor")
)
_pure.register_fake(_shapes)
_append = torch.library.custom_op(
    "fa3_fwd::_forward_append",
    _run,
    mutates_args=("k", "v"),
    schema=_SCHEMA.format(k="Tensor(a!)", v="Tensor(b!)"),
)
_append.register_fake(_shapes)


def forward(  # noqa: PLR0917  # the operator's arguments, by position
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_new: torch.Tensor | None,
    v_new: torch.Tensor | None,
    qv: torch.Tensor | None,
    out: torch.Tensor | None,
    *rest: object,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """`torch.ops.fa3_fwd.fwd` for a graph being compiled: the same positional arguments, the same results.

    The accumulators are None unless num_splits is above 1; an eager call with num_splits=0 may return its scratch.
    """
    operator = torch.ops.fa3_fwd._forward if k_new is None else torch.ops.fa3_fwd._forward_append  # noqa: SLF001
    result, softmax_lse, out_accum, softmax_lse_accum = operator(q, k, v, k_new, v_new, qv, *rest)
    if out is not None:
        result = out.copy_(result)
    if out_accum.shape[0] == 0:
        return result, softmax_lse, None, None
    return result, softmax_lse, out_accum, softmax_lse_accum
