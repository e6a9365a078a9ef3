"""Attention as its definition says, position by position: float64 on the CPU, slow, written for clarity alone.

Takes what `hopper_attention.attention` takes. Which keys a query sees is written into a table of how often each counts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Counts = Callable[[int, int, int], int]
"""How often a key counts: of (head, query, key)."""


def everything(head: int, query: int, key: int) -> int:
    """Every query sees every key."""
    del head, query, key
    return 1


def within(seqlen_q: int, seqlen_k: int, *, causal: bool, window: tuple[int, int] | None) -> Counts:
    """Which keys causal and window leave: the last query is at the last key."""
    before, behind = window or (-1, -1)

    def count(head: int, query: int, key: int) -> int:
        del head
        place = query + seqlen_k - seqlen_q
        if causal and key > place:
            return 0
        if before >= 0 and key < place - before:
            return 0
        return 0 if behind >= 0 and key > place + behind else 1

    return count


def dilated(segment_lengths: tuple[int, ...], dilation_rates: tuple[int, ...], *, causal: bool, shared: int) -> Counts:
    """How often LongNet's pairs let a query see a key; `shared` query heads have one key head."""

    def count(head: int, query: int, key: int) -> int:
        if causal and key > query:
            return 0
        times = 0
        for length, rate in zip(segment_lengths, dilation_rates, strict=True):
            start = query // length * length
            if start <= key < start + length:
                place = (head // shared) % rate
                times += (query - start) % rate == place and (key - start) % rate == place
        return times

    return count


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    counts: Counts = everything,
    scale: float | None = None,
    softcap: float = 0.0,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return output and log-sum-exp, which can be differentiated: zeros and -inf where no key is seen."""
    shared = q.shape[2] // k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k.repeat_interleave(shared, 2)) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if bias is not None:
        scores = scores + bias
    table = torch.tensor(
        [[[counts(h, i, j) for j in range(k.shape[1])] for i in range(q.shape[1])] for h in range(q.shape[2])],
        dtype=torch.float64,
    ).reshape(1, q.shape[2], q.shape[1], k.shape[1])
    if mask is not None:
        table = table * mask
    terms = torch.where(table > 0, table * torch.exp(scores.masked_fill(table == 0, 0.0)), 0.0)
    total = terms.sum(-1, keepdim=True)
    seen = total > 0
    weights = terms / torch.where(seen, total, 1.0)
    out = torch.einsum("bhqk,bkhd->bqhd", weights, v.repeat_interleave(shared, 2))
    lse = torch.where(seen, torch.log(torch.where(seen, total, 1.0)), float("-inf")).squeeze(-1)
    return out, lse
