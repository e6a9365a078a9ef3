"""The function and the module that users call."""

from __future__ import annotations

import torch

from ._checks import HEAD_DIMS, check_added, check_dropout, check_packed, check_tensors


def flash_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    softmax_scale: float | None = None,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int | torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Compute softmax(q k^T * softmax_scale + bias) v in float32, with memory linear in the length.

    q: (batch, seqlen_q, heads, head_dim); k, v: (batch, seqlen_k, heads_k, head_dim), where heads is a multiple of
    heads_k. head_dim goes up to 128; 32, 64, 96 and 128 have kernels, others are padded. Any strides.

    causal: a query sees no key behind it; the last query is aligned with the last key. softmax_scale: if not given,
    1 / sqrt(head_dim). bias (float32, without gradient) or mask (bool, True where a key counts): broadcast to (batch,
    heads, seqlen_q, seqlen_k). dropout: the probability with which a weight is dropped; seed: a number, or a tensor of
    one int64 on the GPU, else drawn from torch's generator. A query that sees no key gives zeros.

    Packed sequences: q (total_q, heads, head_dim), k and v (total_k, heads_k, head_dim), cu_seqlens int32 of
    (sequences + 1,) on the GPU, and the longest lengths. Rows behind the last sequence give zeros and no gradient.

    Returns out, of q's shape with v's head_dim; with return_lse also the log-sum-exp of the scores, (batch, heads,
    seqlen_q), packed (heads, total_q). Both can be differentiated, once. Same inputs, same GPU: the same bits, those of
    the gradients too. Raises TypeError, ValueError and RuntimeError in words.
    """
    packed = cu_seqlens_q is not None or cu_seqlens_k is not None
    check_tensors(q, k, v, packed=packed)
    check_packed(q, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    check_added(q, k, bias=bias, mask=mask, packed=packed)
    check_dropout(dropout, seed)
    head_dim, head_dim_v = q.shape[-1], v.shape[-1]
    width = next(size for size in HEAD_DIMS if size >= max(head_dim, head_dim_v))
    rows = 0 if packed else 1
    out, lse = torch.ops.flash_attention.forward(
        _padded(q, width),
        _padded(k, width),
        _padded(v, width),
        cu_seqlens_q,
        cu_seqlens_k,
        q.shape[rows] if max_seqlen_q is None else max_seqlen_q,
        k.shape[rows] if max_seqlen_k is None else max_seqlen_k,
        _four_dimensions(bias),
        _four_dimensions(mask),
        head_dim**-0.5 if softmax_scale is None else float(softmax_scale),
        causal,
        float(dropout),
        _seed_tensor(seed, q.device) if dropout > 0 else None,
    )
    if head_dim_v != width:
        out = out[..., :head_dim_v]
    return (out, lse) if return_lse else out


def _padded(tensor: torch.Tensor, width: int) -> torch.Tensor:
    missing = width - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing > 0 else tensor


def _four_dimensions(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor[(None,) * (4 - tensor.dim())]


def _seed_tensor(seed: int | torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """The seed as one int64 on the GPU; drawn there if not given, so that nothing waits for the GPU."""
    if isinstance(seed, torch.Tensor):
        return seed.to(device).reshape(1)
    if seed is None:
        return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)
    return torch.full((1,), seed, dtype=torch.int64, device=device)


class FlashAttention(torch.nn.Module):
    """Attention without weights of its own: `flash_attention` with its words kept, dropout in training alone."""

    def __init__(self, *, causal: bool = False, softmax_scale: float | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout, None)
        self.causal = causal
        self.softmax_scale = softmax_scale
        self.dropout = dropout

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        bias: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        seed: int | torch.Tensor | None = None,
        cu_seqlens_q: torch.Tensor | None = None,
        cu_seqlens_k: torch.Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
    ) -> torch.Tensor:
        """Attend; tensors as `flash_attention` takes them."""
        out = flash_attention(
            q,
            k,
            v,
            causal=self.causal,
            softmax_scale=self.softmax_scale,
            bias=bias,
            mask=mask,
            dropout=self.dropout if self.training else 0.0,
            seed=seed,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k,
        )
        if isinstance(out, tuple):  # never without return_lse
            raise TypeError("flash_attention returned a pair")
        return out

    def extra_repr(self) -> str:
        """The words kept."""
        return f"causal={self.causal}, softmax_scale={self.softmax_scale}, dropout={self.dropout}"
