"""Attention over parts of the keys put together into attention over all of them, by their log-sum-exp."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Part = tuple[torch.Tensor, torch.Tensor]
"""An output (batch, seqlen, heads, head_dim) and its log-sum-exp (batch, heads, seqlen)."""


def merge(parts: Sequence[Part]) -> Part:
    """Attend over the keys of all parts, a key that several parts have counting as often.

    The output is as wide as the log-sum-exp. Exact, and so are the gradients, through outputs and log-sum-exps both. A
    query that sees no key in any part gives zeros and -inf.
    """
    sums = torch.stack([lse for _, lse in parts])
    peak = sums.detach().amax(0)
    peak = peak.masked_fill(peak == float("-inf"), 0.0)
    shares = torch.exp(sums - peak)
    total = shares.sum(0)
    blind = total == 0.0
    total = total.masked_fill(blind, 1.0)
    weighed = [by_rows(share) * part for share, (part, _) in zip(shares / total, parts, strict=True)]
    return torch.stack(weighed).sum(0), (torch.log(total) + peak).masked_fill(blind, float("-inf"))


def by_rows(of_queries: torch.Tensor) -> torch.Tensor:
    """A number for each head and query, (batch, heads, seqlen), so that it goes with outputs."""
    return of_queries.transpose(1, 2).unsqueeze(-1)
