"""Attention in plain torch operations, with every feature: what is left where no kernel is right, and the yardstick.

Memory grows with seqlen_q times seqlen_k. Sums are float32, of float64 tensors float64.
"""

from __future__ import annotations

import torch

from ._words import Words, answer_dtype, visible


def eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend; returns the output in q's dtype (of float8 bfloat16) and the log-sum-exp, (batch, heads, seqlen_q).

    A query that sees no key gives zeros, and -inf for the log-sum-exp; gradients through both are finite.
    """
    with torch.autocast(q.device.type, enabled=False):  # it would narrow the products, and the scores with them
        return _wide(q, k, v, words)


def _wide(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = _scores(q.to(wide), k.to(wide), words)
    peak = scores.detach().amax(-1, keepdim=True) if k.shape[1] else scores.new_zeros((*scores.shape[:-1], 1))
    peak = peak.masked_fill(peak == float("-inf"), 0.0)
    exponentials = torch.exp(scores - peak)
    total = exponentials.sum(-1, keepdim=True)
    blind = total == 0.0
    total = total.masked_fill(blind, 1.0)
    weights = exponentials / total
    if words.dropout > 0.0:
        weights = torch.nn.functional.dropout(weights, words.dropout)
    out = weights @ by_heads(v.to(wide), q.shape[2])
    lse = (torch.log(total) + peak).masked_fill(blind, float("-inf")).squeeze(-1)
    return out.transpose(1, 2).to(answer_dtype(q.dtype)), lse


def _scores(q: torch.Tensor, k: torch.Tensor, words: Words) -> torch.Tensor:
    scores = (q.transpose(1, 2) * words.scale) @ by_heads(k, q.shape[2]).transpose(-1, -2)
    if words.softcap > 0.0:
        scores = words.softcap * torch.tanh(scores / words.softcap)
    if words.bias is not None:
        scores = scores + words.bias
    if words.mask is not None:
        scores = scores.masked_fill(~words.mask, float("-inf"))
    seen = visible(words, q.shape[1], k.shape[1], q.device)
    return scores if seen is None else scores.masked_fill(~seen, float("-inf"))


def by_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Bring k or v into (batch, heads, seqlen, head_dim), each head repeated for the query heads that share it."""
    copies = heads // tensor.shape[2]
    tensor = tensor.transpose(1, 2)
    return tensor if copies == 1 else tensor.repeat_interleave(copies, dim=1)
