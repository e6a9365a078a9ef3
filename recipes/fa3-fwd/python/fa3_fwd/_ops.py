"""The operators of `torch.ops.fa3_fwd` with the guard before them: what `fa3_fwd_interface` calls.

Each takes the positional arguments of the operator it is named after. Under torch.compile `fwd` hands over to
`_compile`; the other three are eager only.
"""

from __future__ import annotations

from typing import Any

import torch

from . import _compile, _guard


def fwd(  # noqa: PLR0917  # the operator's arguments, by position
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    k_new: torch.Tensor | None,
    v_new: torch.Tensor | None,
    qv: torch.Tensor | None,
    out: torch.Tensor | None,
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Forward attention: (out, softmax_lse, out_accum, softmax_lse_accum); the last two None when KV is not split.

    Raises UnsupportedGPUError and UnsupportedFeatureError before anything runs on the GPU.
    """
    arguments = (
        *(q, k, v, k_new, v_new, qv, out, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q, seqused_k),
        *(max_seqlen_q, max_seqlen_k, page_table, kv_batch_idx, leftpad_k, rotary_cos, rotary_sin, seqlens_rotary),
        *(q_descale, k_descale, v_descale, softmax_scale, causal, window_left, window_right, attention_chunk),
        *(softcap, rotary_interleaved, scheduler_metadata, num_splits, pack_gqa, sm_margin),
    )
    if torch.compiler.is_compiling():
        return _compile.forward(*arguments)
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
    return torch.ops.fa3_fwd.fwd(*arguments)  # type: ignore[no-any-return]  # registered by the compiled module


def bwd(*arguments: Any) -> tuple[torch.Tensor, ...]:
    """Gradients of attention."""
    _guard.check_backward()
    return torch.ops.fa3_fwd.bwd(*arguments)  # type: ignore[no-any-return]  # registered by the compiled module


def fwd_combine(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Combine the partial results of split KV: (out, softmax_lse)."""
    _guard.check_combine()
    return torch.ops.fa3_fwd.fwd_combine(*arguments)  # type: ignore[no-any-return]  # registered by the compiled module


def get_scheduler_metadata(  # noqa: PLR0917  # the operator's arguments, by position
    batch_size: int,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_heads: int,
    num_heads_k: int,
    head_dim: int,
    head_dim_v: int,
    dtype: torch.dtype,
    seqused_k: torch.Tensor,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    cu_seqlens_k_new: torch.Tensor | None,
    seqused_q: torch.Tensor | None,
    leftpad_k: torch.Tensor | None,
    page_size: int | None,
    max_seqlen_k_new: int,
    causal: bool,
    window_left: int,
    window_right: int,
    attention_chunk: int,
    has_softcap: bool,
    num_splits: int,
    pack_gqa: bool | None,
    sm_margin: int,
) -> torch.Tensor:
    """Schedule of a forward call with cache lengths, int32, to be given to it as scheduler_metadata."""
    _guard.check_scheduler_metadata(
        seqused_k,
        dtype,
        head_dim,
        head_dim_v,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k,
        max_seqlen_k_new=max_seqlen_k_new,
        page_size=page_size,
        causal=causal,
        window_size=(window_left, window_right),
        attention_chunk=attention_chunk,
        has_softcap=has_softcap,
        num_splits=num_splits,
        pack_gqa=pack_gqa,
    )
    return torch.ops.fa3_fwd.get_scheduler_metadata(  # type: ignore[no-any-return]  # registered by the compiled module
        *(batch_size, max_seqlen_q, max_seqlen_k, num_heads, num_heads_k, head_dim, head_dim_v, dtype, seqused_k),
        *(cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q, leftpad_k, page_size, max_seqlen_k_new, causal),
        *(window_left, window_right, attention_chunk, has_softcap, num_splits, pack_gqa, sm_margin),
    )
