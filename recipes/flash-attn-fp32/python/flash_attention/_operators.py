"""What torch must know of the two operators beside their kernels: shapes, gradients, autocast.

`flash_attention::forward` and `::backward` are registered by the compiled library; this adds to them. Importing
this module needs the library to be loaded.
"""

from __future__ import annotations

from typing import Any

import torch

FORWARD = "flash_attention::forward"
BACKWARD = "flash_attention::backward"


def _lse_shape(q: torch.Tensor, cu_seqlens_q: torch.Tensor | None) -> tuple[int, ...]:
    return (q.shape[1], q.shape[0]) if cu_seqlens_q is not None else (q.shape[0], q.shape[2], q.shape[1])


@torch.library.register_fake(FORWARD)
def _forward_shapes(
    q: torch.Tensor,
    k: torch.Tensor,  # noqa: ARG001  # as the operator is called
    v: torch.Tensor,  # noqa: ARG001
    cu_seqlens_q: torch.Tensor | None,
    *rest: object,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty(_lse_shape(q, cu_seqlens_q))


@torch.library.register_fake(BACKWARD)
def _backward_shapes(
    dout: torch.Tensor,  # noqa: ARG001
    dlse: torch.Tensor | None,  # noqa: ARG001
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *rest: object,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, bias, mask, scale, causal, dropout, seed = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens_q, cu_seqlens_k, bias, mask, seed)
    ctx.words = (max_seqlen_q, max_seqlen_k, scale, causal, dropout)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: torch.Tensor | None, dlse: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, bias, mask, seed = ctx.saved_tensors
    max_seqlen_q, max_seqlen_k, scale, causal, dropout = ctx.words
    if dout is None and dlse is None:
        return (None,) * 13
    gradients = torch.ops.flash_attention.backward(
        torch.zeros_like(out) if dout is None else dout,
        dlse,
        q,
        k,
        v,
        out,
        lse,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        bias,
        mask,
        scale,
        causal,
        dropout,
        seed,
    )
    return (*gradients, *(None,) * 10)


def _no_second_gradient(ctx: Any, *gradients: torch.Tensor | None) -> tuple[None, ...]:  # noqa: ARG001
    raise RuntimeError(
        "flash_attention has no second derivative: its gradient cannot be differentiated again; "
        "leave out create_graph=True, or compute attention with plain torch where you need it"
    )


torch.library.register_autograd(FORWARD, _gradients, setup_context=_save)
torch.library.register_autograd(BACKWARD, _no_second_gradient)
torch.library.register_autocast(FORWARD, "cuda", torch.float32)
