"""SDPA's kernels with their log-sum-exp, differentiated for parts that are merged.

Kernels' backward passes take the gradient do of the output o, not that dL of the log-sum-exp L. Both meet in one term:
with P the weights, dS = P * (do v^T - D), where D = do . o - dL for each query, and a kernel computes D as do . o of
the do and o that it is handed. So it is handed o' = o - dL do / |do|^2 in place of o, for which do . o' = do . o - dL.

That is no general gradient: where do is small beside dL, o' is large and lost to rounding. Of parts that are merged
(see `_merge`) dL = do . (o - O) with O the output over all parts, so that o' is no further from o than O is, and is
rounded as o itself. Hence the feature is of its own: `_rules.MERGE_GRADIENT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Kernel:
    """A kernel below autograd, on tensors (batch, heads, seqlen, head_dim).

    `forward` takes q, k, v, causal and scale and returns the output, the log-sum-exp (batch, heads, seqlen), and what
    else backward wants; `backward` takes do, q, k, v, the output, the log-sum-exp, that, causal and scale.
    """

    forward: Callable[..., tuple[Any, ...]]
    backward: Callable[..., Tensors]


def _aten(name: str) -> Callable[..., Any]:
    """An operator of torch below autograd; those of GPUs are looked for when they are called."""
    operator: Callable[..., Any] = getattr(torch.ops.aten, name)
    return operator


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float) -> tuple[Any, ...]:
    answer = _aten("_scaled_dot_product_flash_attention")(q, k, v, is_causal=causal, scale=scale)
    return tuple(answer)[:8]


def _flash_back(do: torch.Tensor, saved: tuple[Any, ...], causal: bool, scale: float) -> Tensors:
    q, k, v, out, lse, first, second, most_q, most_k, seed, offset = saved
    words = (first, second, most_q, most_k, 0.0, causal, seed, offset)
    back = _aten("_scaled_dot_product_flash_attention_backward")
    return tuple(back(do, q, k, v, out, lse, *words, scale=scale))


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float) -> tuple[Any, ...]:
    forward = _aten("_scaled_dot_product_cudnn_attention")
    answer = forward(q, k, v, attn_bias=None, compute_log_sumexp=True, is_causal=causal, scale=scale)
    return tuple(answer)[:8]


def _cudnn_back(do: torch.Tensor, saved: tuple[Any, ...], causal: bool, scale: float) -> Tensors:
    q, k, v, out, lse, first, second, most_q, most_k, seed, offset = saved
    words = (seed, offset, None, first, second, most_q, most_k, 0.0, causal)
    back = _aten("_scaled_dot_product_cudnn_attention_backward")
    return tuple(back(do, q, k, v, out, lse, *words, scale=scale))


def _cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float) -> tuple[Any, ...]:
    return tuple(_aten("_scaled_dot_product_flash_attention_for_cpu")(q, k, v, is_causal=causal, scale=scale))


def _cpu_back(do: torch.Tensor, saved: tuple[Any, ...], causal: bool, scale: float) -> Tensors:
    back = _aten("_scaled_dot_product_flash_attention_for_cpu_backward")
    return tuple(back(do, *saved, 0.0, causal, scale=scale))


KERNELS = {
    "sdpa_cudnn": Kernel(_cudnn, _cudnn_back),
    "sdpa_flash": Kernel(_flash, _flash_back),
    "cpu": Kernel(_cpu, _cpu_back),
}
"""By the name of the backend; that of the CPU is no backend, and shows the formula in float64."""


def part(
    kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend by a kernel: output, and log-sum-exp (batch, heads, seqlen); see the module for their gradients."""
    answer: tuple[torch.Tensor, torch.Tensor] = _Part.apply(q, k, v, kernel, causal, scale)  # type: ignore[no-untyped-call]
    return answer


class _Part(torch.autograd.Function):
    """A kernel with the gradient above."""

    @staticmethod
    def forward(  # noqa: PLR0917  # apply() takes no names
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: str, causal: bool, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; some kernels have a last dimension of one in their log-sum-exp."""
        out, lse, *rest = KERNELS[kernel].forward(q, k, v, causal, scale)
        saved = [isinstance(one, torch.Tensor) for one in rest]  # others are numbers, or None for what is not used
        ctx.words = kernel, causal, scale, saved
        ctx.others = [one for one, is_tensor in zip(rest, saved, strict=True) if not is_tensor]
        ctx.save_for_backward(q, k, v, out, lse, *(one for one, kept in zip(rest, saved, strict=True) if kept))
        return out, lse.reshape(out.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Hand the kernel the output that both gradients make of it."""
        kernel, causal, scale, saved = ctx.words
        q, k, v, out, lse, *tensors = ctx.saved_tensors
        kept, others = iter(tensors), iter(ctx.others)
        rest = [next(kept if is_tensor else others) for is_tensor in saved]
        do, of_lse = gradients
        told = (q, k, v, shifted(out, do, of_lse), lse, *rest)
        return (*KERNELS[kernel].backward(do, told, causal, scale), None, None, None)


def shifted(out: torch.Tensor, do: torch.Tensor, of_lse: torch.Tensor) -> torch.Tensor:
    """The output o' with do . o' = do . out - of_lse; where do is zero it is `out`.

    do is measured by its largest element first, for the square of a small share underflows.
    """
    wide = torch.promote_types(out.dtype, torch.float32)
    largest = do.abs().amax(-1, keepdim=True).to(wide)
    none = largest == 0.0
    largest = largest.masked_fill(none, 1.0)
    unit = do.to(wide) / largest
    square = unit.square().sum(-1, keepdim=True).masked_fill(none, 1.0)
    moved = (of_lse.unsqueeze(-1).to(wide) / largest).masked_fill(none, 0.0) / square * unit
    return (out.to(wide) - moved).to(out.dtype)
